//! Which filter chain takes a connection: Envoy's nine steps, each keeping only the chains with the
//! most specific value that fits, without going back.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::config::CidrRange;
use crate::config::filter_chain::{FilterChain, SourceType};

/// What is known of a connection when its chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Destination: original where restored, else the local address. None for unix sockets.
    pub destination: Option<SocketAddr>,
    /// SNI in any letter case; empty = none.
    pub server_name: &'a str,
    /// `raw_buffer` or `tls`.
    pub transport_protocol: &'a str,
    /// From ALPN or the HTTP inspector.
    pub application_protocols: &'a [&'a str],
    /// The connection's peer.
    pub direct_source: Option<SocketAddr>,
    /// The client (PROXY protocol), mostly the same.
    pub source: Option<SocketAddr>,
}

type Candidates = SmallVec<[u32; 32]>;

/// A compiled choice between the chains of a listener.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    by_port: HashMap<u16, Vec<u32>>,
    any_port: Vec<u32>,
}

impl Matcher {
    /// Compiles the choice.
    #[must_use]
    pub fn new(chains: &[Arc<FilterChain>]) -> Self {
        let mut matcher = Self::default();
        for (i, chain) in (0_u32..).zip(chains) {
            match chain.matching.destination_port {
                Some(port) => matcher.by_port.entry(port).or_default().push(i),
                None => matcher.any_port.push(i),
            }
        }
        matcher
    }

    /// The index of the chain for a connection, of the chains the matcher was made from.
    #[must_use]
    pub fn select(&self, chains: &[Arc<FilterChain>], conn: &Connection<'_>) -> Option<usize> {
        let port = conn.destination.map(|d| d.port());
        let start = port
            .and_then(|p| self.by_port.get(&p))
            .unwrap_or(&self.any_port);
        let mut set: Candidates = start.iter().copied().collect();
        let m = |i: u32| &chains[i as usize].matching;

        narrow_by_ip(&mut set, conn.destination.map(|d| d.ip()), |i| {
            &m(i).prefix_ranges
        });
        narrow_by_server_name(&mut set, conn.server_name, |i| &m(i).server_names);
        narrow_by_text(&mut set, &[conn.transport_protocol], |i| {
            let want = &m(i).transport_protocol;
            if want.is_empty() {
                &[]
            } else {
                std::slice::from_ref(want)
            }
        });
        narrow_by_text(&mut set, conn.application_protocols, |i| {
            &m(i).application_protocols
        });
        narrow_by_ip(&mut set, conn.direct_source.map(|s| s.ip()), |i| {
            &m(i).direct_source_prefix_ranges
        });
        narrow_by_source_type(&mut set, conn, |i| m(i).source_type);
        narrow_by_ip(&mut set, conn.source.map(|s| s.ip()), |i| {
            &m(i).source_prefix_ranges
        });
        narrow_by_port(&mut set, conn.source.map(|s| s.port()), |i| {
            &m(i).source_ports
        });
        set.first().map(|i| *i as usize)
    }
}

fn narrow_by_ip<'a>(
    set: &mut Candidates,
    ip: Option<IpAddr>,
    of: impl Fn(u32) -> &'a [CidrRange] + Copy,
) {
    let score = |i: u32| -> Option<i16> {
        let ranges = of(i);
        if ranges.is_empty() {
            return Some(0);
        }
        let ip = ip?;
        ranges
            .iter()
            .filter(|r| r.contains(ip))
            .map(|r| i16::from(r.prefix_len()))
            .max()
    };
    keep_best(set, score);
}

fn narrow_by_server_name<'a>(
    set: &mut Candidates,
    name: &str,
    of: impl Fn(u32) -> &'a [crate::config::Name] + Copy,
) {
    // Exact names beat any wildcard; a longer wildcard beats a shorter one; no name is least.
    let score = |i: u32| -> Option<i16> {
        let names = of(i);
        if names.is_empty() {
            return Some(0);
        }
        names
            .iter()
            .filter_map(|want| server_name_score(want, name))
            .max()
    };
    keep_best(set, score);
}

fn server_name_score(want: &str, name: &str) -> Option<i16> {
    if name.is_empty() {
        return None;
    }
    match want.strip_prefix('*') {
        None => want.eq_ignore_ascii_case(name).then_some(i16::MAX),
        Some("") => Some(1),
        Some(suffix) => {
            let at = name.len().checked_sub(suffix.len()).filter(|at| *at > 0)?;
            let hit = name.as_bytes()[at..].eq_ignore_ascii_case(suffix.as_bytes());
            hit.then(|| {
                i16::try_from(suffix.len())
                    .unwrap_or(i16::MAX - 1)
                    .saturating_add(1)
            })
        }
    }
}

/// The connection's values in their order: the first that any chain names wins, else chains that
/// name none.
fn narrow_by_text<'a>(
    set: &mut Candidates,
    values: &[&str],
    of: impl Fn(u32) -> &'a [crate::config::Name] + Copy,
) {
    for value in values.iter().filter(|v| !v.is_empty()) {
        let hit = |i: u32| of(i).iter().any(|want| **want == **value);
        if set.iter().any(|i| hit(*i)) {
            set.retain(|i| hit(*i));
            return;
        }
    }
    set.retain(|i| of(*i).is_empty());
}

fn narrow_by_source_type(
    set: &mut Candidates,
    conn: &Connection<'_>,
    of: impl Fn(u32) -> SourceType + Copy,
) {
    if set.iter().all(|i| of(*i) == SourceType::Any) {
        return;
    }
    // Of the loopback network its one address, as Envoy.
    let loopback = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => ip == Ipv4Addr::LOCALHOST,
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    let local = match (conn.source, conn.destination) {
        (Some(s), d) => loopback(s.ip()) || d.is_some_and(|d| d.ip() == s.ip()),
        (None, _) => true,
    };
    let want = if local {
        SourceType::SameIpOrLoopback
    } else {
        SourceType::External
    };
    let want = if set.iter().any(|i| of(*i) == want) {
        want
    } else {
        SourceType::Any
    };
    set.retain(|i| of(*i) == want);
}

fn narrow_by_port<'a>(
    set: &mut Candidates,
    port: Option<u16>,
    of: impl Fn(u32) -> &'a [u16] + Copy,
) {
    let named = |i: u32| port.is_some_and(|p| of(i).contains(&p));
    if set.iter().any(|i| named(*i)) {
        set.retain(|i| named(*i));
    } else {
        set.retain(|i| of(*i).is_empty());
    }
}

fn keep_best(set: &mut Candidates, score: impl Fn(u32) -> Option<i16>) {
    let best = set.iter().filter_map(|i| score(*i)).max();
    set.retain(|i| best.is_some() && score(*i) == best);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::filter_chain::FilterChainMatch;
    use crate::config::{Metadata, Name};

    fn chain(name: &str, matching: FilterChainMatch) -> Arc<FilterChain> {
        Arc::new(FilterChain {
            name: name.into(),
            matching,
            tls: None,
            filters: vec![],
            transport_socket_connect_timeout: None,
            metadata: Metadata::default(),
        })
    }

    fn names(list: &[&str]) -> Vec<Name> {
        list.iter().map(|s| (*s).into()).collect()
    }

    fn cidr(s: &str) -> CidrRange {
        CidrRange(s.parse().unwrap())
    }

    fn pick(chains: &[Arc<FilterChain>], conn: &Connection<'_>) -> String {
        Matcher::new(chains)
            .select(chains, conn)
            .map_or_else(|| "none".into(), |i| chains[i].name.to_string())
    }

    fn conn<'a>(dst: &str, sni: &'a str, tp: &'a str, alpn: &'a [&'a str]) -> Connection<'a> {
        Connection {
            destination: Some(dst.parse().unwrap()),
            server_name: sni,
            transport_protocol: tp,
            application_protocols: alpn,
            direct_source: Some("10.1.1.1:4000".parse().unwrap()),
            source: Some("10.1.1.1:4000".parse().unwrap()),
        }
    }

    #[test]
    fn istio_virtual_inbound() {
        let istio = names(&[
            "istio",
            "istio-peer-exchange",
            "istio-http/1.0",
            "istio-http/1.1",
            "istio-h2",
        ]);
        let tls = |alpn: &[Name]| FilterChainMatch {
            transport_protocol: "tls".into(),
            application_protocols: alpn.to_vec(),
            ..FilterChainMatch::default()
        };
        let raw = |alpn: &[&str]| FilterChainMatch {
            transport_protocol: "raw_buffer".into(),
            application_protocols: names(alpn),
            ..FilterChainMatch::default()
        };
        let port = |p: u16, m: FilterChainMatch| FilterChainMatch {
            destination_port: Some(p),
            ..m
        };
        let chains = [
            chain(
                "blackhole",
                FilterChainMatch {
                    destination_port: Some(15006),
                    ..FilterChainMatch::default()
                },
            ),
            chain("pass-mtls-http", tls(&istio[2..])),
            chain("pass-http", raw(&["http/1.1", "h2c"])),
            chain("pass-mtls", tls(&istio[..2])),
            chain("pass-raw", raw(&[])),
            chain("pass-tls", tls(&[])),
            chain("9080-mtls", port(9080, tls(&istio))),
            chain("9080-raw", port(9080, raw(&[]))),
        ];
        let table: &[(&str, &str, &[&str], &str)] = &[
            ("10.0.0.1:15006", "raw_buffer", &[], "blackhole"),
            ("10.0.0.1:9080", "raw_buffer", &["http/1.1"], "9080-raw"),
            ("10.0.0.1:9080", "tls", &["istio-h2", "istio"], "9080-mtls"),
            // Foreign TLS to an HTTP port: the port step does not go back.
            ("10.0.0.1:9080", "tls", &["h2"], "none"),
            ("10.0.0.1:1234", "raw_buffer", &["http/1.1"], "pass-http"),
            ("10.0.0.1:1234", "raw_buffer", &[], "pass-raw"),
            ("10.0.0.1:1234", "tls", &["istio"], "pass-mtls"),
            ("10.0.0.1:1234", "tls", &["h2"], "pass-tls"),
        ];
        for (dst, tp, alpn, want) in table {
            assert_eq!(
                pick(&chains, &conn(dst, "", tp, alpn)),
                *want,
                "{dst} {tp} {alpn:?}"
            );
        }
    }

    #[test]
    fn server_names_and_ranges() {
        let sni = |n: &str| FilterChainMatch {
            server_names: names(&[n]),
            ..FilterChainMatch::default()
        };
        let dst = |r: &str| FilterChainMatch {
            prefix_ranges: vec![cidr(r)],
            ..FilterChainMatch::default()
        };
        let chains = [
            chain("exact", sni("a.b.com")),
            chain("wide", sni("*.com")),
            chain("narrow", sni("*.b.com")),
            chain("ten8", dst("10.0.0.0/8")),
            chain("ten16", dst("10.9.0.0/16")),
            chain("rest", FilterChainMatch::default()),
        ];
        for (d, n, want) in [
            ("11.0.0.1:1", "A.B.com", "exact"),
            ("11.0.0.1:1", "x.b.com", "narrow"),
            ("11.0.0.1:1", "x.com", "wide"),
            ("11.0.0.1:1", "b.org", "rest"),
            ("11.0.0.1:1", "", "rest"),
            ("10.1.0.1:1", "a.b.com", "ten8"),
            ("10.9.0.1:1", "", "ten16"),
        ] {
            assert_eq!(pick(&chains, &conn(d, n, "tls", &[])), want, "{d} {n}");
        }
    }

    #[test]
    fn sources() {
        let chains = [
            chain(
                "local",
                FilterChainMatch {
                    source_type: SourceType::SameIpOrLoopback,
                    ..Default::default()
                },
            ),
            chain(
                "port",
                FilterChainMatch {
                    source_ports: vec![4000],
                    ..Default::default()
                },
            ),
            chain("other", FilterChainMatch::default()),
        ];
        let mut c = conn("10.0.0.1:80", "", "raw_buffer", &[]);
        assert_eq!(pick(&chains, &c), "port");
        c.source = Some("10.0.0.9:4001".parse().unwrap());
        assert_eq!(pick(&chains, &c), "other");
        c.source = Some("127.0.0.1:4000".parse().unwrap());
        assert_eq!(pick(&chains, &c), "local");
    }
}
