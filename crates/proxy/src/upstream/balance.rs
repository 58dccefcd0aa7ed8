//! The balancer of a cluster in one worker: the choice is `proxy-core`'s, this
//! file keeps its state and tells it what is in flight.

use std::rc::Rc;

use lateen_proxy_core::config::HealthStatus;
use lateen_proxy_core::config::cluster::Cluster;
use lateen_proxy_core::config::endpoint::ClusterLoadAssignment;

use super::host::Host;
use crate::io::timer::now_ms;

/// Balancing state.
#[derive(Debug)]
pub struct Balancer {
    next: usize,
}

impl Balancer {
    /// State for a cluster without hosts.
    pub fn new(_config: &Cluster) -> Self {
        Self {
            next: fastrand::usize(..1 << 16),
        }
    }

    /// Takes a new set of hosts.
    pub fn update(
        &mut self,
        _config: &Cluster,
        _hosts: &[Rc<Host>],
        _assignment: Option<&ClusterLoadAssignment>,
    ) {
    }

    /// Chooses one.
    pub fn choose(
        &mut self,
        hosts: &[Rc<Host>],
        _hash: Option<u64>,
        avoid: &[Rc<Host>],
    ) -> Option<Rc<Host>> {
        let now = now_ms();
        let usable = |h: &&Rc<Host>| {
            let well = matches!(h.endpoint.health, HealthStatus::Unknown | HealthStatus::Healthy);
            well && h.ejected_until.get() <= now
        };
        let count = hosts.iter().filter(usable).count();
        if count == 0 {
            return None;
        }
        self.next = self.next.wrapping_add(1);
        let mut ring = hosts.iter().filter(usable).cycle().skip(self.next % count).take(count);
        let first = ring.next()?;
        if !avoid.iter().any(|a| Rc::ptr_eq(a, first)) {
            return Some(first.clone());
        }
        let other = ring.find(|h| !avoid.iter().any(|a| Rc::ptr_eq(a, h)));
        Some(other.unwrap_or(first).clone())
    }
}
