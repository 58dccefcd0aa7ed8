//! Hosts of DNS clusters. One worker looks the names up again and again for all;
//! each name goes its own way, so that one that fails holds up no other. A failed
//! look-up keeps the hosts that were there.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::cluster::{Cluster, ClusterDiscovery, Dns};
use lateen_proxy_core::config::endpoint::{ClusterLoadAssignment, Endpoint};
use lateen_proxy_core::config::{Address, Name};
use tokio::sync::watch;

use super::cluster::ClusterState;
use super::resolve;
use crate::io::Timer;
use crate::stats::ClusterStats;
use crate::stats::rare::ClusterEvent;

/// What the names of a cluster stand for now, in all workers.
#[derive(Debug)]
pub struct Resolution(watch::Sender<Option<Arc<ClusterLoadAssignment>>>);

impl Default for Resolution {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

/// Takes the hosts that the names stand for, now and later; ends with the
/// cluster.
pub fn follow(cluster: &Rc<ClusterState>, resolution: &Resolution) {
    let mut changes = resolution.0.subscribe();
    if let Some(assignment) = &*changes.borrow_and_update() {
        cluster.set_assignment(assignment);
    }
    let weak = Rc::downgrade(cluster);
    tokio::task::spawn_local(async move {
        while changes.changed().await.is_ok() {
            let now = changes.borrow_and_update().clone();
            let Some(cluster) = weak.upgrade() else {
                return;
            };
            if let Some(assignment) = &now {
                cluster.set_assignment(assignment);
            }
        }
    });
}

/// Begins to look a cluster's names up; ends with the cluster.
pub fn start(cluster: &Rc<ClusterState>, resolution: &Arc<Resolution>) {
    let (Some(dns), Some(assignment)) = (
        settings(&cluster.config),
        cluster.config.load_assignment.clone(),
    ) else {
        return;
    };
    let names = Rc::new(Names {
        cluster: Rc::downgrade(cluster),
        resolution: resolution.clone(),
        dns: dns.clone(),
        logical: matches!(cluster.config.discovery, ClusterDiscovery::LogicalDns(_)),
        found: RefCell::new(vec![None; assignment.endpoints().count()]),
        assignment,
        stats: cluster.stats.clone(),
    });
    cluster
        .resolved
        .set(names.assignment.endpoints().next().is_none());
    for (index, (_, endpoint)) in names.assignment.endpoints().enumerate() {
        match &endpoint.address {
            Address::Host { host, port } => {
                let look = names.clone().refresh(index, host.clone(), *port);
                tokio::task::spawn_local(look);
            }
            // What is an address already stands for itself.
            Address::Socket(address) => {
                names.count(ClusterEvent::update_attempt);
                names.take(cluster, index, vec![*address]);
            }
            Address::Pipe(_) | Address::Internal(_) => {}
        }
    }
}

/// The settings of a DNS cluster.
pub fn settings(cluster: &Cluster) -> Option<&Dns> {
    match &cluster.discovery {
        ClusterDiscovery::StrictDns(dns) | ClusterDiscovery::LogicalDns(dns) => Some(&**dns),
        _ => None,
    }
}

/// The names of a cluster and what is known of them.
struct Names {
    cluster: Weak<ClusterState>,
    resolution: Arc<Resolution>,
    dns: Dns,
    logical: bool,
    assignment: Arc<ClusterLoadAssignment>,
    /// By the endpoint's place; none = not looked up yet.
    found: RefCell<Vec<Option<Vec<SocketAddr>>>>,
    stats: Rc<ClusterStats>,
}

impl Names {
    async fn refresh(self: Rc<Self>, index: usize, host: Name, port: u16) {
        let timer = Timer::new();
        let mut failures = 0;
        loop {
            self.count(ClusterEvent::update_attempt);
            let found = resolve::addresses(&host, &self.dns.resolver, self.dns.family).await;
            let Some(cluster) = self.cluster.upgrade() else {
                return;
            };
            let wait = match found {
                // As in Envoy, for one host no address is a failure: it stays as it was.
                Ok(found) if found.is_empty() && self.logical => {
                    self.failed(&cluster);
                    let wait = back_off(&self.dns, failures);
                    failures += 1;
                    wait
                }
                Ok(found) => {
                    failures = 0;
                    let least = self.used(&found).iter().map(|(_, ttl)| *ttl).min();
                    let socket = |(ip, _): &resolve::Found| SocketAddr::new(*ip, port);
                    let addresses = self.used(&found).iter().map(socket).collect();
                    self.take(&cluster, index, addresses);
                    self.until(least)
                }
                Err(error) => {
                    tracing::debug!(target: crate::logger::DNS, cluster = %cluster.config.name, %host, %error, "name resolution");
                    self.failed(&cluster);
                    let wait = back_off(&self.dns, failures);
                    failures += 1;
                    wait
                }
            };
            drop(cluster);
            timer.sleep(wait.max(Duration::from_millis(1))).await;
        }
    }

    fn failed(&self, cluster: &ClusterState) {
        self.count(ClusterEvent::update_failure);
        cluster.resolved.set(true);
    }

    fn count(&self, event: ClusterEvent) {
        self.stats.events.inc(event);
    }

    /// All addresses, or the first.
    fn used<'a>(&self, found: &'a [resolve::Found]) -> &'a [resolve::Found] {
        match self.logical {
            true => &found[..found.len().min(1)],
            false => found,
        }
    }

    /// How long a good answer is kept.
    fn until(&self, least: Option<u32>) -> Duration {
        let asked = least.filter(|ttl| self.dns.respect_ttl && *ttl > 0);
        let wait = match asked {
            Some(ttl) => Duration::from_secs(ttl.into()).max(self.dns.least_ttl),
            None => self.dns.refresh_rate,
        };
        wait + self.dns.jitter.mul_f64(fastrand::f64())
    }

    fn take(&self, cluster: &ClusterState, index: usize, mut addresses: Vec<SocketAddr>) {
        self.stats.cells.update_success.inc();
        cluster.resolved.set(true);
        // In one order, so that the same answer is the same list.
        addresses.sort_unstable();
        addresses.dedup();
        let mut found = self.found.borrow_mut();
        let Some(place) = found.get_mut(index) else {
            return;
        };
        if *place.as_deref().unwrap_or_default() == *addresses {
            self.count(ClusterEvent::update_no_rebuild);
        }
        if place.as_ref() == Some(&addresses) {
            return;
        }
        *place = Some(addresses);
        let assignment = Arc::new(self.resolved(&found));
        drop(found);
        cluster.set_assignment(&assignment);
        self.resolution.0.send_replace(Some(assignment));
    }

    /// The endpoints with addresses in place of names.
    fn resolved(&self, found: &[Option<Vec<SocketAddr>>]) -> ClusterLoadAssignment {
        let mut assignment = (*self.assignment).clone();
        let mut place = 0;
        for locality in &mut assignment.localities {
            let named = std::mem::take(&mut locality.endpoints);
            for endpoint in named {
                let addresses = found.get(place).and_then(Option::as_ref);
                place += 1;
                let at = |address: &SocketAddr| at_address(&endpoint, *address);
                locality
                    .endpoints
                    .extend(addresses.into_iter().flatten().map(at));
            }
        }
        assignment
    }
}

fn at_address(endpoint: &Endpoint, address: SocketAddr) -> Endpoint {
    let mut at = endpoint.clone();
    if at.hostname.is_empty() {
        at.hostname = match &endpoint.address {
            Address::Host { host, .. } => host.clone(),
            _ => address.ip().to_string().into(),
        };
    }
    at.address = Address::Socket(address);
    at
}

/// The wait after so many failures: somewhere below a bound that doubles with
/// each of them.
fn back_off(dns: &Dns, failures: u32) -> Duration {
    match dns.failure_refresh_rate {
        Some((base, most)) => {
            let bound = base.saturating_mul(1 << failures.min(16)).min(most);
            bound.mul_f64(fastrand::f64())
        }
        None => dns.refresh_rate,
    }
}
