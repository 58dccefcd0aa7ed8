//! What happens after routing: destination rules and their traffic policies.

use crate::{ExportTo, Origin, Selector, Str, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A destination rule, or several of the same host and namespace merged.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationRule {
    /// Namespace.
    pub namespace: Str,
    /// Name of the first (oldest) object.
    pub name: Str,
    /// The first object; subsets carry their own origins.
    pub origin: Origin,
    /// Creation time of the first object.
    pub created: Timestamp,
    /// Fully qualified host, or a wildcard.
    pub host: Str,
    /// Who may see it.
    pub export_to: ExportTo,
    /// Client workloads it is limited to; `None` for all.
    pub workload_selector: Option<Selector>,
    /// Policy of the whole host.
    pub policy: TrafficPolicy,
    /// Named subsets in declared order.
    pub subsets: Vec<Subset>,
}

/// A named part of a service's endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Subset {
    /// Name.
    pub name: Str,
    /// Labels its endpoints carry.
    pub labels: Selector,
    /// Policy over the host's; unset parts are inherited.
    pub policy: TrafficPolicy,
    /// Where it was written.
    pub origin: Origin,
}

impl DestinationRule {
    /// The subset of this name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|s| &*s.name == name)
    }

    /// The policy in force for a subset (or none) and a service port.
    ///
    /// A subset's parts replace the host's part by part; a port-level policy
    /// replaces the parts it names, and the parts that exist at port level and
    /// are left out there fall back to defaults, not to the destination level
    /// (Istio's documented rule), tunnel and proxyProtocol apart.
    pub fn effective(&self, subset: Option<&str>, port: u16) -> TrafficPolicy {
        let subset = subset.and_then(|name| self.subset(name)).map(|s| &s.policy);
        let mut out = self.policy.clone();
        let mut port_level = self.policy.port_level.get(&port);
        if let Some(s) = subset {
            out.overlay(s);
            port_level = s.port_level.get(&port).or(port_level);
        }
        out.port_level = BTreeMap::new();
        if let Some(p) = port_level {
            out.load_balancer = p.load_balancer.clone();
            out.connection_pool = p.connection_pool.clone();
            out.outlier_detection = p.outlier_detection.clone();
            out.tls = p.tls.clone();
        }
        out
    }
}

/// A traffic policy; unset parts are Istio's defaults or inherited.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits of connections and requests.
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoints.
    pub tls: Option<ClientTls>,
    /// CONNECT or POST tunnel.
    pub tunnel: Option<Tunnel>,
    /// PROXY protocol version (1 or 2) sent upstream.
    pub proxy_protocol: Option<u8>,
    /// Policies of single service ports.
    pub port_level: BTreeMap<u16, TrafficPolicy>,
    /// Retry budget: percent of active requests and minimum concurrency.
    pub retry_budget: Option<RetryBudget>,
}

impl TrafficPolicy {
    /// Puts the set parts of `over` over this one, whole parts at a time.
    pub fn overlay(&mut self, over: &TrafficPolicy) {
        fn put<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        put(&mut self.load_balancer, &over.load_balancer);
        put(&mut self.connection_pool, &over.connection_pool);
        put(&mut self.outlier_detection, &over.outlier_detection);
        put(&mut self.tls, &over.tls);
        put(&mut self.tunnel, &over.tunnel);
        put(&mut self.proxy_protocol, &over.proxy_protocol);
        put(&mut self.retry_budget, &over.retry_budget);
        if !over.port_level.is_empty() {
            self.port_level.clone_from(&over.port_level);
        }
    }

    /// True when endpoints may be ranked by where the client is: by shares, or by failover,
    /// which outlier detection turns on. Either may stand here and the other in a subset.
    pub(crate) fn asks_locality(&self) -> bool {
        let rules = self.load_balancer.as_ref();
        let shares = rules.and_then(|l| l.locality.as_ref());
        self.outlier_detection.is_some()
            || shares.is_some_and(|l| !l.distribute.is_empty())
            || self.port_level.values().any(Self::asks_locality)
    }

    /// Adds the keys of labels that failover orders compare, those of single ports included.
    pub(crate) fn ask_labels(&self, keys: &mut BTreeSet<Str>) {
        let locality = self
            .load_balancer
            .as_ref()
            .and_then(|l| l.locality.as_ref());
        let order = locality.iter().flat_map(|l| &l.failover_priority);
        // `key=value` compares endpoints with a fixed value, `key` with the client's own.
        keys.extend(order.filter(|e| !e.contains('=')).cloned());
        for policy in self.port_level.values() {
            policy.ask_labels(keys);
        }
    }
}

/// Retry budget.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    /// Percent of active requests that may be retries; Istio's default 20.
    pub percent: f64,
    /// Retries always allowed; default 3.
    pub min_concurrency: u32,
}

/// Load balancing of a host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadBalancer {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Ramp-up of new endpoints.
    pub warmup: Option<Warmup>,
    /// Locality rules; `None` is the mesh setting.
    pub locality: Option<LocalityLb>,
}

/// Load-balancing algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Istio's default: least requests.
    #[default]
    Unspecified,
    /// Fewest outstanding requests of two picks.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// Keep the original destination.
    Passthrough,
    /// By a hash of the request.
    ConsistentHash(ConsistentHash),
}

/// Consistent hashing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// Ring or table.
    pub table: HashTable,
}

/// What a consistent hash looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A request header.
    Header(Str),
    /// A cookie, made when missing: name, path, lifetime.
    Cookie {
        /// Cookie name.
        name: Str,
        /// Cookie path; empty for unset.
        path: Str,
        /// Lifetime; zero is a session cookie, `None` never makes one.
        ttl: Option<Duration>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Str),
}

/// Kind and size of a hash table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTable {
    /// Ring hash with a least ring size (default 1024).
    Ring(u64),
    /// Maglev with a table size (default 65537), a prime below 5000011.
    Maglev(u64),
}

/// Ramp-up of new endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Warmup {
    /// Length of the ramp.
    pub duration: Duration,
    /// Start share in percent (default 10).
    pub minimum_percent: Option<f64>,
    /// Curve (default 1, linear).
    pub aggression: Option<f64>,
}

/// Locality rules of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalityLb {
    /// Off switch; `None` follows the mesh.
    pub enabled: Option<bool>,
    /// From a locality pattern to shares of localities, summing to 100.
    pub distribute: Vec<(Str, BTreeMap<Str, u32>)>,
    /// From a region to the region that takes over.
    pub failover: Vec<(Str, Str)>,
    /// Labels compared in order to rank endpoints.
    pub failover_priority: Vec<Str>,
}

/// Limits of connections and requests; unset is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionPool {
    /// TCP connections.
    pub max_connections: Option<u32>,
    /// Connect timeout; mesh default 10 s.
    pub connect_timeout: Option<Duration>,
    /// TCP keepalive.
    pub keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Idle time of TCP connections.
    pub tcp_idle_timeout: Option<Duration>,
    /// Queue for a connection (HTTP/1).
    pub http1_max_pending_requests: Option<u32>,
    /// Requests at once.
    pub http2_max_requests: Option<u32>,
    /// Requests per connection.
    pub max_requests_per_connection: Option<u32>,
    /// Retries at once.
    pub max_retries: Option<u32>,
    /// Idle time of HTTP connections; Envoy's default 1 h.
    pub http_idle_timeout: Option<Duration>,
    /// Upgrade HTTP/1 to HTTP/2 upstream: `Some(true)` UPGRADE, `Some(false)` DO_NOT_UPGRADE.
    pub h2_upgrade: Option<bool>,
    /// Speak to upstream what the client speaks.
    pub use_client_protocol: bool,
    /// Streams per HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
}

/// TCP keepalive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TcpKeepalive {
    /// Probes before giving up.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between.
    pub interval: Option<Duration>,
}

/// Ejection of failing endpoints; unset numbers are Envoy's defaults.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OutlierDetection {
    /// 5xx in a row (Envoy default 5; 0 turns it off).
    pub consecutive_5xx: Option<u32>,
    /// Gateway errors in a row (off unless set).
    pub consecutive_gateway: Option<u32>,
    /// Local origin failures in a row, with local errors split.
    pub consecutive_local_origin: Option<u32>,
    /// Count local and external errors apart.
    pub split_external_local: bool,
    /// Time between sweeps (10 s).
    pub interval: Option<Duration>,
    /// Base ejection time (30 s).
    pub base_ejection_time: Option<Duration>,
    /// Most that may be out, percent (10).
    pub max_ejection_percent: Option<u32>,
    /// Below this share of healthy endpoints all are used, percent (0).
    pub min_health_percent: Option<u32>,
}

/// TLS towards endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTls {
    /// Mode.
    pub mode: ClientTlsMode,
    /// Certificate file (MUTUAL).
    pub client_certificate: Option<Str>,
    /// Key file (MUTUAL).
    pub private_key: Option<Str>,
    /// CA file; unset uses the system's.
    pub ca_certificates: Option<Str>,
    /// Secret name instead of files.
    pub credential_name: Option<Str>,
    /// Accepted names.
    pub subject_alt_names: Vec<Str>,
    /// SNI to send.
    pub sni: Option<Str>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// CRL file.
    pub ca_crl: Option<Str>,
}

/// Client TLS mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientTlsMode {
    /// Plain.
    #[default]
    Disable,
    /// Server authentication.
    Simple,
    /// Both, with given certificates.
    Mutual,
    /// Both, with mesh certificates.
    IstioMutual,
}

/// A tunnel to an outer proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// `CONNECT` or `POST`.
    pub protocol: Str,
    /// Target host.
    pub target_host: Str,
    /// Target port.
    pub target_port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(n: u32) -> Option<ConnectionPool> {
        Some(ConnectionPool {
            max_connections: Some(n),
            ..Default::default()
        })
    }

    #[test]
    fn subset_inherits_and_port_replaces() {
        let host = TrafficPolicy {
            connection_pool: pool(1),
            outlier_detection: Some(OutlierDetection::default()),
            port_level: BTreeMap::from([(
                81,
                TrafficPolicy {
                    connection_pool: pool(81),
                    ..Default::default()
                },
            )]),
            ..Default::default()
        };
        let v1 = Subset {
            name: "v1".into(),
            labels: Selector::default(),
            policy: TrafficPolicy {
                connection_pool: pool(2),
                ..Default::default()
            },
            origin: Origin::default(),
        };
        let rule = DestinationRule {
            namespace: "n".into(),
            name: "r".into(),
            origin: Origin::default(),
            created: 0,
            host: "h".into(),
            export_to: ExportTo::All,
            workload_selector: None,
            policy: host,
            subsets: vec![v1],
        };
        let max = |s, p| {
            rule.effective(s, p)
                .connection_pool
                .unwrap()
                .max_connections
        };
        assert_eq!(max(None, 80), Some(1));
        assert_eq!(max(Some("v1"), 80), Some(2));
        assert!(rule.effective(Some("v1"), 80).outlier_detection.is_some());
        assert_eq!(max(Some("v1"), 81), Some(81));
        assert!(rule.effective(None, 81).outlier_detection.is_none());
    }
}
