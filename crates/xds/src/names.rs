//! The names of clusters, listeners and routes: how other parts and users refer to them.

use lateen_model::Str;

/// The cluster that keeps the original destination of outbound traffic.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// The cluster that keeps the original destination of inbound traffic.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// The cluster without endpoints.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// The listener that catches outbound connections.
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// The listener that catches inbound connections.
pub const VIRTUAL_INBOUND: &str = "virtualInbound";

/// `outbound|PORT|SUBSET|HOST`.
pub fn outbound(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `outbound_.PORT_.SUBSET_.HOST`: the SNI of mesh TLS.
pub fn dns_sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// `inbound|PORT||`, by the workload's port.
pub fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// An outbound cluster name taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundName {
    /// Service port.
    pub port: u16,
    /// Subset, `None` for all endpoints.
    pub subset: Option<Str>,
    /// Host.
    pub host: Str,
}

/// Reads `outbound|PORT|SUBSET|HOST`.
pub fn parse_outbound(name: &str) -> Option<OutboundName> {
    let mut parts = name.strip_prefix("outbound|")?.splitn(3, '|');
    let port = parts.next()?.parse().ok()?;
    let subset = parts.next()?;
    let host = parts.next().filter(|h| !h.is_empty())?;
    let subset = (!subset.is_empty()).then(|| Str::from(subset));
    Some(OutboundName {
        port,
        subset,
        host: host.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outbound_names_round_trip() {
        let host = "reviews.default.svc.cluster.local";
        let parsed = parse_outbound(&outbound(9080, "v1", host)).expect("parses");
        assert_eq!(
            (parsed.port, parsed.subset.as_deref(), &*parsed.host),
            (9080, Some("v1"), host)
        );
        assert_eq!(
            parse_outbound("outbound|9080||h").and_then(|n| n.subset),
            None
        );
        for bad in [
            "outbound|x||h",
            "inbound|1||",
            "outbound|1|v1",
            "outbound|9080|v1|",
        ] {
            assert_eq!(parse_outbound(bad), None, "{bad}");
        }
    }
}
