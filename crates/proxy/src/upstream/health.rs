//! What the workers know together of the hosts of a cluster: the outcome of
//! active checks and the counts of passive ones. Only clusters that configure
//! either have it; a worker sees a change at its next choice of a host.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hashbrown::HashMap;
use lateen_proxy_core::outlier::Monitor;

/// Marks of a host; see the constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthFlags(pub u8);

impl HealthFlags {
    /// Fails its active check, or was not checked yet.
    pub const FAILED_ACTIVE: Self = Self(1);
    /// Ejected by outlier detection.
    pub const EJECTED: Self = Self(2);
    /// Its active check answers that it is degraded.
    pub const DEGRADED_ACTIVE: Self = Self(4);
    /// Not checked yet, and not to be counted until then.
    pub const PENDING_ACTIVE: Self = Self(8);
    /// Asked to be left out of all counts (`x-envoy-immediate-health-check-fail`).
    pub const EXCLUDED: Self = Self(16);
    /// Its last active check ran out of time.
    pub const TIMED_OUT: Self = Self(32);
    /// A first check has ended.
    pub const CHECKED: Self = Self(64);

    /// Whether one of the marks is there.
    #[must_use]
    pub fn has(self, marks: Self) -> bool {
        self.0 & marks.0 != 0
    }

    /// Both sets.
    #[must_use]
    pub const fn and(self, marks: Self) -> Self {
        Self(self.0 | marks.0)
    }
}

/// The health of one host, in all workers.
#[derive(Debug, Default)]
pub struct HostHealth {
    flags: AtomicU8,
    monitor: Mutex<Monitor>,
}

impl HostHealth {
    /// Its marks now.
    pub fn flags(&self) -> HealthFlags {
        HealthFlags(self.flags.load(Ordering::Acquire))
    }

    /// Sets and clears marks; true when that changed any.
    pub fn mark(&self, set: HealthFlags, clear: HealthFlags) -> bool {
        let change = |old: u8| Some((old & !clear.0) | set.0);
        let (ordering, look) = (Ordering::AcqRel, Ordering::Acquire);
        let old = self.flags.fetch_update(ordering, look, change);
        old.is_ok_and(|old| ((old & !clear.0) | set.0) != old)
    }

    /// The counts of passive checks.
    pub fn monitor(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The health of a cluster's hosts, in all workers.
#[derive(Debug, Default)]
pub struct ClusterHealth {
    changes: AtomicU64,
    next_sweep: AtomicU64,
    used: AtomicBool,
    hosts: Mutex<HashMap<Box<str>, Weak<HostHealth>>>,
}

impl ClusterHealth {
    /// The health of the host at an address; made with `marks` where no worker
    /// knows it.
    pub fn host(&self, address: &str, marks: HealthFlags) -> Arc<HostHealth> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(address).and_then(Weak::upgrade) {
            return known;
        }
        hosts.retain(|_, host| host.strong_count() > 0);
        let new = Arc::new(HostHealth::default());
        new.mark(marks, HealthFlags::default());
        hosts.insert(address.into(), Arc::downgrade(&new));
        new
    }

    /// How often anything changed so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Something changed: every worker is to look.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the sweep that is due at `now` (ms) is the caller's; the next
    /// one comes `interval` ms later.
    pub fn takes_sweep(&self, now: u64, interval: u64) -> bool {
        let due = self.next_sweep.load(Ordering::Acquire);
        let next = now.saturating_add(interval.max(1));
        if due == 0 {
            // The first interval begins now.
            let _ = self.exchange_sweep(0, next);
            return false;
        }
        now >= due && self.exchange_sweep(due, next)
    }

    fn exchange_sweep(&self, old: u64, new: u64) -> bool {
        let (ordering, look) = (Ordering::AcqRel, Ordering::Acquire);
        let swapped = self.next_sweep.compare_exchange(old, new, ordering, look);
        swapped.is_ok()
    }

    /// A connection was made for traffic.
    pub fn use_it(&self) {
        self.used.store(true, Ordering::Release);
    }

    /// Whether traffic ever came this way.
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_host_and_one_of_them_sweeps() {
        let cluster = ClusterHealth::default();
        let [one, two] = [0, 1].map(|_| cluster.host("10.0.0.1:80", HealthFlags::FAILED_ACTIVE));
        assert!(Arc::ptr_eq(&one, &two));
        assert!(one.mark(HealthFlags::EJECTED, HealthFlags::FAILED_ACTIVE));
        assert!(!two.mark(HealthFlags::EJECTED, HealthFlags::FAILED_ACTIVE));
        assert_eq!(two.flags(), HealthFlags::EJECTED);
        assert!(!cluster.takes_sweep(100, 50), "the first interval begins");
        assert!(!cluster.takes_sweep(149, 50));
        assert!(cluster.takes_sweep(150, 50) && !cluster.takes_sweep(150, 50));
        drop((one, two));
        let new = cluster.host("10.0.0.1:80", HealthFlags::default());
        assert_eq!(
            new.flags(),
            HealthFlags::default(),
            "a host that went is forgotten"
        );
    }
}
