//! The management server in the statistics: its cluster's connections, which no
//! worker makes, and what became of its responses. Names as Envoy has them.

use lateen_proxy_core::stats::{Counter, Gauge, Registry, Scope};
use lateen_proxy_xds::ads::{Outcomes, Status};
use lateen_proxy_xds::kind::Kind;

/// Counters that follow a value which only grows.
struct Following {
    counter: Counter,
    seen: u64,
}

impl Following {
    fn new(registry: &Registry, scope: &Scope, stat: &str) -> Self {
        Self {
            counter: registry.counter(&scope.stat(stat)),
            seen: 0,
        }
    }

    fn follow(&mut self, now: u64) {
        self.counter.add(now.saturating_sub(self.seen));
        self.seen = now;
    }
}

/// What became of the responses of one kind.
struct Updates {
    attempt: Following,
    success: Following,
    rejected: Following,
    failure: Following,
}

impl Updates {
    fn new(registry: &Registry, scope: &Scope) -> Self {
        let following = |stat: &str| Following::new(registry, scope, stat);
        Self {
            attempt: following("update_attempt"),
            success: following("update_success"),
            rejected: following("update_rejected"),
            failure: following("update_failure"),
        }
    }

    fn follow(&mut self, outcomes: Outcomes) {
        let came = outcomes.accepted + outcomes.rejected + outcomes.failed;
        self.attempt.follow(outcomes.asked + came);
        self.failure.follow(outcomes.failed);
        self.success.follow(outcomes.accepted);
        self.rejected.follow(outcomes.rejected);
    }
}

/// The connections to the server, under its cluster's name.
struct Connections {
    active: Gauge,
    total: Following,
    failed: Following,
    received: Following,
    sent: Following,
}

/// The management server's series.
pub(super) struct ControlPlane {
    connected: Option<Gauge>,
    /// None without a server.
    connections: Option<Connections>,
    clusters: Option<Updates>,
    listeners: Option<Updates>,
}

impl ControlPlane {
    /// The series of a server that is reached by this cluster.
    /// `asked` = whether clusters and listeners come from it.
    pub(super) fn new(registry: &Registry, cluster: Option<&str>, asked: [bool; 2]) -> Self {
        let connections = cluster.map(|name| {
            let scope = Scope::cluster(name);
            let following = |stat: &str| Following::new(registry, &scope, stat);
            Connections {
                active: registry.gauge(&scope.stat("upstream_cx_active")),
                total: following("upstream_cx_total"),
                failed: following("upstream_cx_connect_fail"),
                received: following("upstream_cx_rx_bytes_total"),
                sent: following("upstream_cx_tx_bytes_total"),
            }
        });
        let updates =
            |manager: &str, kind: &str| Updates::new(registry, &Scope::group(manager).sub(kind));
        Self {
            connected: cluster
                .map(|_| registry.gauge(&Scope::group("control_plane").stat("connected_state"))),
            connections,
            clusters: asked[0].then(|| updates("cluster_manager", "cds")),
            listeners: asked[1].then(|| updates("listener_manager", "lds")),
        }
    }

    /// Brings the series to the present.
    pub(super) fn refresh(&mut self, status: &Status) {
        if let Some(connected) = &self.connected {
            connected.set(i64::from(status.connected));
        }
        if let Some(connections) = &mut self.connections {
            connections.active.set(i64::from(status.connected));
            connections.total.follow(status.attempts);
            connections.failed.follow(status.failures);
            connections.received.follow(status.received);
            connections.sent.follow(status.sent);
        }
        if let Some(clusters) = &mut self.clusters {
            clusters.follow(status.outcomes(Kind::Cluster));
        }
        if let Some(listeners) = &mut self.listeners {
            listeners.follow(status.outcomes(Kind::Listener));
        }
    }
}

/// Why clusters and listeners are not both there, as Istio's agent words it;
/// `asked` = whether each comes from the server at all.
pub(super) fn missing(status: &Status, asked: [bool; 2]) -> Option<String> {
    let both = [Kind::Cluster, Kind::Listener].map(|kind| status.outcomes(kind));
    let lacks = |(o, asked): (&Outcomes, bool)| asked && o.accepted == 0;
    if !both.iter().zip(asked).any(lacks) {
        return None;
    }
    let [cds, lds] = both.map(|o| format!("{} successful, {} rejected", o.accepted, o.rejected));
    let what = match both.iter().any(|o| o.rejected > 0) {
        true => "config received from XDS server, but was rejected",
        false => "config not received from XDS server (is Istiod running?)",
    };
    Some(format!("{what}: cds updates: {cds}; lds updates: {lds}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_proxy_core::stats::MetricValue;

    #[test]
    fn what_is_missing() {
        let mut status = Status::default();
        let words = |status: &Status| missing(status, [true, true]).unwrap_or_default();
        assert_eq!(
            words(&status),
            "config not received from XDS server (is Istiod running?): \
             cds updates: 0 successful, 0 rejected; lds updates: 0 successful, 0 rejected"
        );
        status.outcomes[Kind::Cluster as usize].accepted = 1;
        status.outcomes[Kind::Listener as usize].rejected = 2;
        assert_eq!(
            words(&status),
            "config received from XDS server, but was rejected: \
             cds updates: 1 successful, 0 rejected; lds updates: 0 successful, 2 rejected"
        );
        assert_eq!(missing(&status, [true, false]), None, "static listeners");
        status.outcomes[Kind::Listener as usize].accepted = 1;
        assert_eq!(words(&status), "");
    }

    #[test]
    fn series_follow_the_stream() {
        let registry = Registry::new();
        let mut server = ControlPlane::new(&registry, Some("xds-grpc"), [true, true]);
        let mut status = Status {
            connected: true,
            attempts: 2,
            failures: 1,
            received: 100,
            sent: 10,
            ..Status::default()
        };
        status.outcomes[Kind::Listener as usize].asked = 1;
        status.outcomes[Kind::Listener as usize].rejected = 1;
        status.outcomes[Kind::Listener as usize].failed = 2;
        server.refresh(&status);
        status.received = 150;
        status.outcomes[Kind::Listener as usize].accepted = 3;
        server.refresh(&status);
        let all = registry.collect();
        let value = |name: &str| {
            let found = all.iter().find(|m| &*m.name.flat == name);
            found.map(|m| m.value.clone())
        };
        for (name, count) in [
            ("cluster.xds-grpc.upstream_cx_total", 2),
            ("cluster.xds-grpc.upstream_cx_connect_fail", 1),
            ("cluster.xds-grpc.upstream_cx_rx_bytes_total", 150),
            ("cluster.xds-grpc.upstream_cx_tx_bytes_total", 10),
            ("listener_manager.lds.update_attempt", 7),
            ("listener_manager.lds.update_failure", 2),
            ("listener_manager.lds.update_success", 3),
            ("listener_manager.lds.update_rejected", 1),
            ("cluster_manager.cds.update_success", 0),
        ] {
            assert_eq!(value(name), Some(MetricValue::Counter(count)), "{name}");
        }
        let active = value("cluster.xds-grpc.upstream_cx_active");
        assert_eq!(active, Some(MetricValue::Gauge(1)));
    }
}
