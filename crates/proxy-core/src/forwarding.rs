//! What the connection manager does to request headers before anything looks at them: who the
//! client is, whether the request is internal, which headers an outsider may not set.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::http_connection_manager::{ForwardClientCert, HttpConnectionManager};
use crate::headers::HeadersMut;
use crate::known::Known;
use crate::matcher::Headers;
use crate::original_ip;

/// What is known of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Downstream<'a> {
    /// Directly connected peer; none = unix socket.
    pub peer: Option<SocketAddr>,
    /// Local address (original destination where restored).
    pub local: Option<SocketAddr>,
    /// TLS is on.
    pub tls: bool,
    /// The peer's certificate was presented and verified.
    pub peer_certificate: Option<PeerCertificate<'a>>,
    /// The node's own address, written in place of a loopback peer.
    pub node_ip: Option<IpAddr>,
}

/// The peer's certificate as XFCC tells it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerCertificate<'a> {
    /// URI SANs of our own certificate.
    pub own_uri_sans: &'a [&'a str],
    /// SHA-256 of the peer's certificate, lower-case hex.
    pub hash: &'a str,
    /// Subject, RFC 2253.
    pub subject: &'a str,
    /// URI SANs.
    pub uri_sans: &'a [&'a str],
    /// DNS SANs.
    pub dns_sans: &'a [&'a str],
    /// URL-encoded PEM of the certificate.
    pub cert: &'a str,
    /// URL-encoded PEM of the chain.
    pub chain: &'a str,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client: peer, or from XFF (then with port 0). None = unix socket.
    pub client: Option<SocketAddr>,
    /// Comes from an internal address.
    pub internal: bool,
    /// From outside, at the edge: `x-envoy-*` settings were stripped.
    pub edge: bool,
    /// An extension that looks for the client refuses the request with this status.
    pub refused: Option<u16>,
}

/// Headers only an inside caller may send.
const INTERNAL_ONLY: u128 = Known::bits(&[
    Known::XEnvoyRetriableStatusCodes,
    Known::XEnvoyRetriableHeaderNames,
    Known::XEnvoyRetryOn,
    Known::XEnvoyRetryGrpcOn,
    Known::XEnvoyMaxRetries,
    Known::XEnvoyUpstreamAltStatName,
    Known::XEnvoyUpstreamRqTimeoutAltResponse,
    Known::XEnvoyUpstreamRqTimeoutMs,
    Known::XEnvoyUpstreamRqPerTryTimeoutMs,
    Known::XEnvoyExpectedRqTimeoutMs,
    Known::XEnvoyForceTrace,
    Known::XEnvoyIpTags,
    Known::XEnvoyHedgeOnPerTryTimeout,
    Known::XEnvoyUpstreamStreamDurationMs,
]);

/// Headers an edge takes from outside callers on top.
const EDGE_ONLY: u128 = Known::bits(&[
    Known::XEnvoyDownstreamServiceCluster,
    Known::XEnvoyDownstreamServiceNode,
    Known::XEnvoyDecoratorOperation,
    Known::XEnvoyOriginalPath,
    Known::XEnvoyOriginalHost,
]);

/// Applies the rules to a request. The request id is not made here (it needs randomness).
pub fn sanitize<H: HeadersMut + ?Sized>(
    headers: &mut H,
    hcm: &HttpConnectionManager,
    down: &Downstream<'_>,
) -> Origin {
    // Extensions stand in the place of all that is usual.
    let usual = hcm.original_ip.is_empty();
    let found = original_ip::detect(&hcm.original_ip, headers, down.peer);
    let (client, single_hop) = match found.client {
        Some((client, trusted)) => (Some(client), trusted),
        None => {
            let single_hop = match hcm.use_remote_address {
                // The peer becomes one more entry.
                true => headers.known(Known::XForwardedFor).is_none(),
                false => forwarded_for_count(headers) <= 1,
            };
            (client_address(headers, hcm, down), single_hop)
        }
    };
    if found.append || (usual && hcm.use_remote_address && !hcm.skip_xff_append) {
        append_forwarded_for(headers, down);
    }
    set_forwarded_proto(headers, hcm, down);

    let internal = match client {
        Some(addr) => {
            single_hop
                && hcm
                    .internal_addresses
                    .iter()
                    .any(|range| range.contains(addr.ip()))
        }
        None => hcm.internal_unix_sockets,
    };
    let edge = !internal && hcm.use_remote_address;
    headers.remove_known(Known::XEnvoyInternal);
    if internal {
        headers.set_known(Known::XEnvoyInternal, b"true");
    } else {
        headers.remove_all(INTERNAL_ONLY);
    }
    if edge {
        headers.remove_all(EDGE_ONLY);
        if let Some(addr) = client {
            let address = addr.ip().to_string();
            headers.set_known(Known::XEnvoyExternalAddress, address.as_bytes());
        }
        match headers.known(Known::XRequestId) {
            _ if hcm.preserve_external_request_id => {}
            // Empty, so that the new one takes its place.
            Some(_) if hcm.generate_request_id => headers.set_known(Known::XRequestId, b""),
            _ => headers.remove_known(Known::XRequestId),
        }
    }
    if !internal {
        headers.remove_known(Known::XEnvoyOriginalUrl);
    }
    client_certificate(headers, hcm, down);
    Origin {
        client,
        internal,
        edge,
        refused: found.refused,
    }
}

fn forwarded_for_count<H: Headers + ?Sized>(headers: &H) -> usize {
    let mut count = 0;
    if headers.known(Known::XForwardedFor).is_none() {
        return count;
    }
    headers.any("x-forwarded-for", &mut |line| {
        count += line
            .split(|b| *b == b',')
            .filter(|e| !e.trim_ascii().is_empty())
            .count();
        false
    });
    count
}

/// The entry `hops + 1` from the right of XFF.
fn forwarded_for_entry<H: Headers + ?Sized>(headers: &H, hops: u32) -> Option<SocketAddr> {
    headers.known(Known::XForwardedFor)?;
    let mut entries: Vec<Option<IpAddr>> = Vec::new();
    headers.any("x-forwarded-for", &mut |line| {
        entries.extend(line.split(|b| *b == b',').map(|e| parse_ip(e.trim_ascii())));
        false
    });
    let at = entries.len().checked_sub(hops as usize + 1)?;
    entries[at].map(|ip| SocketAddr::new(ip, 0))
}

pub(crate) fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse().ok()
}

fn client_address<H: Headers + ?Sized>(
    headers: &H,
    hcm: &HttpConnectionManager,
    down: &Downstream<'_>,
) -> Option<SocketAddr> {
    if hcm.use_remote_address {
        if hcm.xff_num_trusted_hops > 0 {
            return forwarded_for_entry(headers, hcm.xff_num_trusted_hops - 1).or(down.peer);
        }
        return down.peer;
    }
    if !hcm.original_ip.is_empty() {
        return down.peer;
    }
    forwarded_for_entry(headers, hcm.xff_num_trusted_hops).or(down.peer)
}

fn append_forwarded_for<H: HeadersMut + ?Sized>(headers: &mut H, down: &Downstream<'_>) {
    let Some(peer) = down.peer else {
        return;
    };
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let ip = if loopback.contains(&peer.ip()) {
        down.node_ip.unwrap_or(peer.ip())
    } else {
        peer.ip()
    };
    let mut value = Vec::new();
    headers.any("x-forwarded-for", &mut |line| {
        if !value.is_empty() {
            value.push(b',');
        }
        value.extend_from_slice(line);
        false
    });
    if !value.is_empty() {
        value.push(b',');
    }
    value.extend_from_slice(ip.to_string().as_bytes());
    headers.set_known(Known::XForwardedFor, &value);
}

fn set_forwarded_proto<H: HeadersMut + ?Sized>(
    headers: &mut H,
    hcm: &HttpConnectionManager,
    down: &Downstream<'_>,
) {
    let own: &[u8] = if down.tls { b"https" } else { b"http" };
    let trusted = !hcm.use_remote_address || hcm.xff_num_trusted_hops > 0;
    let is_scheme = |v: &[u8]| v.eq_ignore_ascii_case(b"http") || v.eq_ignore_ascii_case(b"https");
    // Of two lines who is behind may read either.
    let mut valid = headers.known(Known::XForwardedProto).is_some_and(is_scheme);
    let mut lines = 0;
    if valid {
        let mut another = |_: &[u8]| {
            lines += 1;
            lines > 1
        };
        valid = !headers.any("x-forwarded-proto", &mut another);
    }
    if !trusted || !valid {
        headers.set_known(Known::XForwardedProto, own);
    }
    if hcm.append_x_forwarded_port
        && headers.known(Known::XForwardedPort).is_none()
        && let Some(local) = down.local
    {
        headers.set_known(Known::XForwardedPort, local.port().to_string().as_bytes());
    }
}

fn client_certificate<H: HeadersMut + ?Sized>(
    headers: &mut H,
    hcm: &HttpConnectionManager,
    down: &Downstream<'_>,
) {
    const NAME: Known = Known::XForwardedClientCert;
    use ForwardClientCert as F;
    match (hcm.forward_client_cert, &down.peer_certificate) {
        (F::AlwaysForwardOnly, _) | (F::ForwardOnly, Some(_)) => {}
        (F::AppendForward, Some(cert)) => {
            let mut value = Vec::new();
            headers.any(NAME.name(), &mut |line| {
                if !value.is_empty() {
                    value.push(b',');
                }
                value.extend_from_slice(line);
                false
            });
            if !value.is_empty() {
                value.push(b',');
            }
            value.extend_from_slice(element(hcm, cert).as_bytes());
            headers.set_known(NAME, &value);
        }
        (F::SanitizeSet, Some(cert)) => headers.set_known(NAME, element(hcm, cert).as_bytes()),
        (F::Sanitize, _) | (_, None) => headers.remove_known(NAME),
    }
}

/// Our element of XFCC: `By=..;Hash=..;Subject="..";URI=..;DNS=..`.
fn element(hcm: &HttpConnectionManager, cert: &PeerCertificate<'_>) -> String {
    let details = hcm.client_cert_details;
    let mut parts: Vec<String> = cert
        .own_uri_sans
        .iter()
        .map(|uri| format!("By={uri}"))
        .collect();
    parts.push(format!("Hash={}", cert.hash));
    if details.cert {
        parts.push(format!("Cert=\"{}\"", cert.cert));
    }
    if details.chain {
        parts.push(format!("Chain=\"{}\"", cert.chain));
    }
    if details.subject {
        // RFC 2253 has escaped the quotes in it already.
        parts.push(format!("Subject=\"{}\"", cert.subject));
    }
    if details.uri {
        if cert.uri_sans.is_empty() {
            parts.push("URI=".into());
        }
        parts.extend(cert.uri_sans.iter().map(|uri| format!("URI={uri}")));
    }
    if details.dns {
        parts.extend(cert.dns_sans.iter().map(|dns| format!("DNS={dns}")));
    }
    parts.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RouteConfiguration, RouteSource};
    use crate::headers::HeaderList;

    fn down() -> Downstream<'static> {
        Downstream {
            peer: Some("10.1.2.3:5000".parse().unwrap()),
            local: Some("10.9.9.9:80".parse().unwrap()),
            tls: false,
            peer_certificate: None,
            node_ip: Some("10.9.9.9".parse().unwrap()),
        }
    }

    fn connection_manager() -> HttpConnectionManager {
        let routes = RouteConfiguration::new("t".into());
        HttpConnectionManager::new("t".into(), RouteSource::Inline(routes.into()))
    }

    #[test]
    fn sidecar_leaves_forwarded_for() {
        let hcm = connection_manager();
        let mut h = HeaderList::of(&[
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2"),
            ("x-envoy-max-retries", "3"),
            ("x-envoy-hedge-on-per-try-timeout", "true"),
            ("x-envoy-upstream-stream-duration-ms", "5"),
            ("x-envoy-internal", "true"),
            ("x-envoy-foo", "kept"),
            ("x-request-id", "kept"),
        ]);
        let o = sanitize(&mut h, &hcm, &down());
        assert_eq!(
            o,
            Origin {
                refused: None,
                client: Some("2.2.2.2:0".parse().unwrap()),
                internal: false,
                edge: false
            }
        );
        assert_eq!(h.show("x-forwarded-for"), "1.1.1.1, 2.2.2.2");
        assert_eq!(h.show("x-envoy-max-retries"), "");
        assert_eq!(h.show("x-envoy-hedge-on-per-try-timeout"), "");
        assert_eq!(h.show("x-envoy-upstream-stream-duration-ms"), "");
        assert_eq!(h.show("x-envoy-internal"), "");
        assert_eq!(h.show("x-envoy-foo"), "kept");
        assert_eq!(h.show("x-request-id"), "kept");
        assert_eq!(h.show("x-forwarded-proto"), "http");
    }

    #[test]
    fn edge_appends_and_strips() {
        let mut hcm = connection_manager();
        hcm.use_remote_address = true;
        let mut h = HeaderList::of(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "outside"),
            ("x-envoy-original-path", "/forged"),
        ]);
        let o = sanitize(&mut h, &hcm, &down());
        assert!(o.edge && !o.internal);
        assert_eq!(h.show("x-forwarded-for"), "1.1.1.1,10.1.2.3");
        assert_eq!(h.show("x-forwarded-proto"), "http");
        assert_eq!(h.show("x-envoy-external-address"), "10.1.2.3");
        assert_eq!(h.show("x-request-id"), "");
        assert_eq!(h.show("x-envoy-original-path"), "");
        hcm.xff_num_trusted_hops = 1;
        let mut h = HeaderList::of(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(
            sanitize(&mut h, &hcm, &down()).client,
            Some("1.1.1.1:0".parse().unwrap())
        );
        assert_eq!(h.show("x-forwarded-proto"), "https");
    }

    #[test]
    fn client_certificates() {
        let cert = PeerCertificate {
            own_uri_sans: &["spiffe://me"],
            hash: "ab",
            subject: "CN=\\\"x\\\"",
            uri_sans: &["spiffe://you"],
            dns_sans: &["a", "b"],
            ..PeerCertificate::default()
        };
        let mut hcm = connection_manager();
        hcm.client_cert_details.uri = true;
        hcm.client_cert_details.dns = true;
        hcm.client_cert_details.subject = true;
        let own = "By=spiffe://me;Hash=ab;Subject=\"CN=\\\"x\\\"\";URI=spiffe://you;DNS=a;DNS=b";
        use ForwardClientCert as F;
        let appended = format!("old,{own}");
        for (mode, mtls, want) in [
            (F::Sanitize, true, ""),
            (F::ForwardOnly, true, "old"),
            (F::ForwardOnly, false, ""),
            (F::AppendForward, true, appended.as_str()),
            (F::AppendForward, false, ""),
            (F::SanitizeSet, true, own),
            (F::AlwaysForwardOnly, false, "old"),
        ] {
            hcm.forward_client_cert = mode;
            let mut h = HeaderList::of(&[("x-forwarded-client-cert", "old")]);
            let d = Downstream {
                peer_certificate: mtls.then_some(cert),
                ..down()
            };
            sanitize(&mut h, &hcm, &d);
            assert_eq!(h.show("x-forwarded-client-cert"), want, "{mode:?} {mtls}");
        }
    }
}
