//! The protocol of a port and the rule that chooses it.

use std::fmt;

/// What a port speaks. [`Protocol::Auto`] is Istio's "unsupported": nothing
/// declares it, so the proxy looks at the first bytes (unless sniffing is off).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// Clear-text HTTP/2.
    Http2,
    /// gRPC over clear-text HTTP/2.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// TLS that the application itself ends, SNI-routed.
    Https,
    /// TLS carrying anything.
    Tls,
    /// Opaque bytes.
    Tcp,
    /// MongoDB wire protocol.
    Mongo,
    /// MySQL wire protocol.
    Mysql,
    /// Redis wire protocol.
    Redis,
    /// Datagrams: never in the mesh.
    Udp,
    /// Undeclared: detected at run time.
    #[default]
    Auto,
}

/// Ports whose server speaks first, so that waiting for client bytes would hang
/// (SMTP, DNS, MySQL, MongoDB).
const SERVER_FIRST_PORTS: [u16; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// Reads a protocol word (`http`, `GRPC-Web`, ...), ignoring case; unknown words are `None`.
    pub fn parse(word: &str) -> Option<Self> {
        let known: [(&str, Protocol); 12] = [
            ("http", Protocol::Http),
            ("http2", Protocol::Http2),
            ("grpc", Protocol::Grpc),
            ("grpc-web", Protocol::GrpcWeb),
            ("https", Protocol::Https),
            ("tls", Protocol::Tls),
            ("tcp", Protocol::Tcp),
            ("mongo", Protocol::Mongo),
            ("mysql", Protocol::Mysql),
            ("redis", Protocol::Redis),
            ("udp", Protocol::Udp),
            ("http_proxy", Protocol::Http),
        ];
        known
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|(_, p)| *p)
    }

    /// The protocol of a Kubernetes Service port (istio.md section 2, "Protocol choice"):
    /// UDP transport, then `appProtocol`, then the port name's prefix up to the
    /// first `-`, then server-first ports as TCP, else [`Protocol::Auto`].
    pub fn choose(port: u16, name: &str, transport: &str, app_protocol: Option<&str>) -> Self {
        if transport.eq_ignore_ascii_case("udp") {
            return Protocol::Udp;
        }
        let word = match app_protocol {
            Some("kubernetes.io/h2c") => return Protocol::Http2,
            Some("kubernetes.io/ws") => return Protocol::Http,
            Some("kubernetes.io/wss") => return Protocol::Https,
            Some(other) => other,
            None => name,
        };
        if word
            .get(..8)
            .is_some_and(|p| p.eq_ignore_ascii_case("grpc-web"))
        {
            return Protocol::GrpcWeb;
        }
        let prefix = word.split('-').next().unwrap_or(word);
        match Protocol::parse(prefix) {
            Some(p) => p,
            None if SERVER_FIRST_PORTS.contains(&port) => Protocol::Tcp,
            None => Protocol::Auto,
        }
    }

    /// HTTP in any version, in the clear.
    pub fn is_http(self) -> bool {
        matches!(
            self,
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb
        )
    }

    /// HTTP/2 prior knowledge towards the upstream.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// TLS ended by the application.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Https | Protocol::Tls)
    }

    /// Handled as a byte stream (TLS included).
    pub fn is_tcp(self) -> bool {
        matches!(
            self,
            Protocol::Tcp
                | Protocol::Https
                | Protocol::Tls
                | Protocol::Mongo
                | Protocol::Mysql
                | Protocol::Redis
        )
    }

    /// What is used in a direction whose sniffing switch is `sniffing`:
    /// undeclared ports are TCP when it is off.
    pub fn with_sniffing(self, sniffing: bool) -> Self {
        if self == Protocol::Auto && !sniffing {
            Protocol::Tcp
        } else {
            self
        }
    }

    /// Istio's spelling (`HTTP`, `GRPC-Web`, ...); `UnsupportedProtocol` for undeclared.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http => "HTTP",
            Protocol::Http2 => "HTTP2",
            Protocol::Grpc => "GRPC",
            Protocol::GrpcWeb => "GRPC-Web",
            Protocol::Https => "HTTPS",
            Protocol::Tls => "TLS",
            Protocol::Tcp => "TCP",
            Protocol::Mongo => "Mongo",
            Protocol::Mysql => "MySQL",
            Protocol::Redis => "Redis",
            Protocol::Udp => "UDP",
            Protocol::Auto => "UnsupportedProtocol",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice() {
        let c = |port, name: &str, app| Protocol::choose(port, name, "TCP", app);
        assert_eq!(c(9080, "http", None), Protocol::Http);
        assert_eq!(c(9080, "http2-foo", None), Protocol::Http2);
        assert_eq!(c(9080, "HTTP-x", None), Protocol::Http);
        assert_eq!(c(9080, "grpc-web-x", None), Protocol::GrpcWeb);
        assert_eq!(c(9080, "httpfoo", None), Protocol::Auto);
        assert_eq!(c(9080, "", None), Protocol::Auto);
        assert_eq!(c(3306, "", None), Protocol::Tcp);
        assert_eq!(c(3306, "http", None), Protocol::Http);
        assert_eq!(c(80, "tcp", Some("http")), Protocol::Http);
        assert_eq!(c(80, "x", Some("kubernetes.io/h2c")), Protocol::Http2);
        assert_eq!(c(80, "x", Some("kubernetes.io/wss")), Protocol::Https);
        assert_eq!(Protocol::choose(53, "dns", "UDP", None), Protocol::Udp);
        assert_eq!(Protocol::Auto.with_sniffing(false), Protocol::Tcp);
        assert_eq!(Protocol::Auto.with_sniffing(true), Protocol::Auto);
    }
}
