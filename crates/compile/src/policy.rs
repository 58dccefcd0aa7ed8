//! DestinationRule objects to rules; several of one host and namespace merged.

use crate::name;
use lateen_model::policy::{
    Algorithm, ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, DestinationRule, HashKey,
    HashTable, LoadBalancer, LocalityLb, OutlierDetection, RetryBudget, Subset, TcpKeepalive,
    TrafficPolicy, Tunnel, Warmup,
};
use lateen_model::{ExportTo, MeshConfig, Str};
use lateen_resources::istio;
use lateen_resources::{Object, proto};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Converts a DestinationRule.
pub fn convert(
    object: &Object,
    rule: &istio::DestinationRule,
    mesh: &MeshConfig,
) -> DestinationRule {
    let meta = &object.meta;
    let origin = name::origin(object);
    let subset = |(i, s): (usize, &istio::Subset)| Subset {
        name: s.name.as_str().into(),
        labels: name::selector(&s.labels),
        policy: policy(s.traffic_policy.as_ref()),
        origin: origin.at(format!("spec.subsets[{i}]")),
    };
    DestinationRule {
        namespace: meta.namespace.as_str().into(),
        name: meta.name.as_str().into(),
        created: meta.created(),
        host: name::full_host(&rule.host, &meta.namespace, &mesh.cluster_domain),
        export_to: ExportTo::parse(
            rule.export_to.iter().map(String::as_str),
            &meta.namespace,
            &mesh.default_destination_rule_export_to,
        ),
        workload_selector: rule
            .workload_selector
            .as_ref()
            .filter(|s| !s.match_labels.is_empty())
            .map(|s| name::selector(&s.match_labels)),
        policy: policy(rule.traffic_policy.as_ref()),
        subsets: rule.subsets.iter().enumerate().map(subset).collect(),
        origin: origin.clone(),
    }
}

fn policy(written: Option<&istio::TrafficPolicy>) -> TrafficPolicy {
    let Some(p) = written else {
        return TrafficPolicy::default();
    };
    let port_level = p.port_level_settings.iter().filter_map(|l| {
        let port = u16::try_from(l.port.as_ref()?.number).ok()?;
        let policy = TrafficPolicy {
            load_balancer: l.load_balancer.as_ref().map(load_balancer),
            connection_pool: l.connection_pool.as_ref().map(connection_pool),
            outlier_detection: l.outlier_detection.as_ref().map(outlier),
            tls: l.tls.as_ref().map(tls),
            ..TrafficPolicy::default()
        };
        Some((port, policy))
    });
    TrafficPolicy {
        load_balancer: p.load_balancer.as_ref().map(load_balancer),
        connection_pool: p.connection_pool.as_ref().map(connection_pool),
        outlier_detection: p.outlier_detection.as_ref().map(outlier),
        tls: p.tls.as_ref().map(tls),
        tunnel: p.tunnel.as_ref().and_then(tunnel),
        proxy_protocol: p.proxy_protocol.as_ref().map(|v| match v.version {
            istio::ProxyProtocolVersion::V1 => 1,
            istio::ProxyProtocolVersion::V2 => 2,
        }),
        port_level: port_level.collect(),
        retry_budget: p.retry_budget.as_ref().map(|b| RetryBudget {
            percent: b.percent.unwrap_or(20.0),
            min_concurrency: if b.min_retry_concurrency == 0 {
                3
            } else {
                b.min_retry_concurrency
            },
        }),
    }
}

fn span(d: Option<proto::Duration>) -> Option<Duration> {
    d.map(|d| d.to_std())
}

/// Limits of 0 mean unset, as in protobuf.
fn limit(n: Option<i32>) -> Option<u32> {
    n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
}

fn tunnel(t: &istio::TunnelSettings) -> Option<Tunnel> {
    Some(Tunnel {
        protocol: if t.protocol.is_empty() {
            "CONNECT".into()
        } else {
            t.protocol.as_str().into()
        },
        target_host: t.target_host.as_str().into(),
        target_port: u16::try_from(t.target_port).ok()?,
    })
}

fn load_balancer(l: &istio::LoadBalancerSettings) -> LoadBalancer {
    let algorithm = match (
        l.consistent_hash.as_ref().and_then(consistent_hash),
        l.simple,
    ) {
        (Some(hash), _) => Algorithm::ConsistentHash(hash),
        (None, None | Some(istio::SimpleLb::Unspecified)) => Algorithm::Unspecified,
        (None, Some(istio::SimpleLb::LeastConn | istio::SimpleLb::LeastRequest)) => {
            Algorithm::LeastRequest
        }
        (None, Some(istio::SimpleLb::Random)) => Algorithm::Random,
        (None, Some(istio::SimpleLb::Passthrough)) => Algorithm::Passthrough,
        (None, Some(istio::SimpleLb::RoundRobin)) => Algorithm::RoundRobin,
    };
    let warmup = match (&l.warmup, l.warmup_duration_secs) {
        (Some(w), _) => w.duration.map(|d| Warmup {
            duration: d.to_std(),
            minimum_percent: w.minimum_percent,
            aggression: w.aggression,
        }),
        (None, Some(d)) => Some(Warmup {
            duration: d.to_std(),
            minimum_percent: None,
            aggression: None,
        }),
        (None, None) => None,
    };
    LoadBalancer {
        algorithm,
        warmup,
        locality: l.locality_lb_setting.as_ref().map(locality),
    }
}

/// Istio's least ring size.
const RING_SIZE: u64 = 1024;
/// Envoy's Maglev table size.
const MAGLEV_SIZE: u64 = 65537;

fn consistent_hash(c: &istio::ConsistentHashLb) -> Option<ConsistentHash> {
    let key = if let Some(h) = &c.http_header_name {
        HashKey::Header(h.as_str().into())
    } else if let Some(cookie) = &c.http_cookie {
        HashKey::Cookie {
            name: cookie.name.as_str().into(),
            path: cookie.path.as_str().into(),
            ttl: span(cookie.ttl),
        }
    } else if c.use_source_ip == Some(true) {
        HashKey::SourceIp
    } else if let Some(q) = &c.http_query_parameter_name {
        HashKey::Query(q.as_str().into())
    } else {
        return None;
    };
    let table = match (&c.maglev, &c.ring_hash) {
        (Some(m), _) => HashTable::Maglev(m.table_size.unwrap_or(MAGLEV_SIZE)),
        (None, ring) => {
            let size = ring
                .as_ref()
                .and_then(|r| r.minimum_ring_size)
                .or(c.minimum_ring_size);
            HashTable::Ring(size.filter(|s| *s > 0).unwrap_or(RING_SIZE))
        }
    };
    Some(ConsistentHash { key, table })
}

fn locality(l: &istio::LocalityLbSetting) -> LocalityLb {
    let distribute = |d: &istio::LocalityDistribute| {
        let to =
            d.to.iter()
                .map(|(k, v)| (Str::from(k.as_str()), *v))
                .collect();
        (Str::from(d.from.as_str()), to)
    };
    LocalityLb {
        enabled: l.enabled,
        distribute: l.distribute.iter().map(distribute).collect(),
        failover: l
            .failover
            .iter()
            .map(|f| (f.from.as_str().into(), f.to.as_str().into()))
            .collect(),
        failover_priority: name::list(&l.failover_priority),
    }
}

fn connection_pool(c: &istio::ConnectionPoolSettings) -> ConnectionPool {
    let tcp = c.tcp.clone().unwrap_or_default();
    let http = c.http.clone().unwrap_or_default();
    ConnectionPool {
        max_connections: limit(tcp.max_connections),
        connect_timeout: span(tcp.connect_timeout),
        keepalive: tcp.tcp_keepalive.as_ref().map(|k| TcpKeepalive {
            probes: k.probes.filter(|p| *p > 0),
            time: span(k.time),
            interval: span(k.interval),
        }),
        max_connection_duration: span(tcp.max_connection_duration),
        tcp_idle_timeout: span(tcp.idle_timeout),
        http1_max_pending_requests: limit(http.http1_max_pending_requests),
        http2_max_requests: limit(http.http2_max_requests),
        max_requests_per_connection: limit(http.max_requests_per_connection),
        max_retries: limit(http.max_retries),
        http_idle_timeout: span(http.idle_timeout),
        h2_upgrade: match http.h2_upgrade_policy {
            None | Some(istio::H2UpgradePolicy::Default) => None,
            Some(istio::H2UpgradePolicy::Upgrade) => Some(true),
            Some(istio::H2UpgradePolicy::DoNotUpgrade) => Some(false),
        },
        use_client_protocol: http.use_client_protocol,
        max_concurrent_streams: limit(http.max_concurrent_streams),
    }
}

fn outlier(o: &istio::OutlierDetection) -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: o.consecutive_5xx_errors,
        // The older field meant gateway errors (Istio kept that reading).
        consecutive_gateway: o.consecutive_gateway_errors.or(limit(o.consecutive_errors)),
        consecutive_local_origin: o.consecutive_local_origin_failures,
        split_external_local: o.split_external_local_origin_errors,
        interval: span(o.interval),
        base_ejection_time: span(o.base_ejection_time),
        max_ejection_percent: limit(o.max_ejection_percent),
        min_health_percent: o.min_health_percent.and_then(|n| u32::try_from(n).ok()),
    }
}

fn tls(t: &istio::ClientTlsSettings) -> ClientTls {
    ClientTls {
        mode: match t.mode {
            istio::ClientTlsMode::Disable => ClientTlsMode::Disable,
            istio::ClientTlsMode::Simple => ClientTlsMode::Simple,
            istio::ClientTlsMode::Mutual => ClientTlsMode::Mutual,
            istio::ClientTlsMode::IstioMutual => ClientTlsMode::IstioMutual,
        },
        client_certificate: name::optional(&t.client_certificate),
        private_key: name::optional(&t.private_key),
        ca_certificates: name::optional(&t.ca_certificates),
        credential_name: name::optional(&t.credential_name),
        subject_alt_names: name::list(&t.subject_alt_names),
        sni: name::optional(&t.sni),
        insecure_skip_verify: t.insecure_skip_verify.unwrap_or(false),
        ca_crl: name::optional(&t.ca_crl),
    }
}

type Group = (Str, Str, ExportTo);

/// Merged rules, kept while their parts stay the same.
#[derive(Debug, Default)]
pub struct Cache {
    merged: HashMap<Group, (Vec<Arc<DestinationRule>>, Arc<DestinationRule>)>,
}

impl Cache {
    /// Rules of the same namespace, host and visibility become one: the oldest
    /// policy wins, subsets are added where their name is new. Rules with a
    /// workload selector stay apart.
    pub fn merge(&mut self, rules: Vec<Arc<DestinationRule>>) -> Vec<Arc<DestinationRule>> {
        let mut out = Vec::new();
        let mut groups: HashMap<Group, Vec<Arc<DestinationRule>>> = HashMap::new();
        for rule in rules {
            if rule.workload_selector.is_some() {
                out.push(rule);
                continue;
            }
            let key = (
                rule.namespace.clone(),
                rule.host.clone(),
                rule.export_to.clone(),
            );
            groups.entry(key).or_default().push(rule);
        }
        let mut old = std::mem::take(&mut self.merged);
        for (key, mut group) in groups {
            if let [only] = &group[..] {
                out.push(only.clone());
                continue;
            }
            group.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
            let same = |(was, _): &(Vec<Arc<DestinationRule>>, Arc<DestinationRule>)| {
                was.len() == group.len() && was.iter().zip(&group).all(|(a, b)| Arc::ptr_eq(a, b))
            };
            let merged = match old.remove(&key).filter(same) {
                Some((_, merged)) => merged,
                None => Arc::new(merge(&group)),
            };
            out.push(merged.clone());
            self.merged.insert(key, (group, merged));
        }
        out
    }
}

fn merge(group: &[Arc<DestinationRule>]) -> DestinationRule {
    let mut out = (*group[0]).clone();
    for rule in &group[1..] {
        if out.policy == TrafficPolicy::default() {
            out.policy.clone_from(&rule.policy);
        }
        for subset in &rule.subsets {
            if out.subset(&subset.name).is_none() {
                out.subsets.push(subset.clone());
            }
        }
    }
    out
}
