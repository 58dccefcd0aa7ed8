//! Circuit breakers: how many connections, waiting requests, requests and
//! retries a cluster may have at once. The counts are shared by all workers
//! where a limit can be reached; a limit at the type's end counts nothing.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lateen_proxy_core::config::cluster::CircuitBreaker;

use crate::stats::ClusterStats;

/// A limit from here on is no limit (Istio writes 2^32 - 1).
const UNLIMITED: u32 = 1 << 30;

/// What is in flight in one cluster and priority, in all workers.
#[derive(Debug, Default)]
pub struct InFlight {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
}

/// A limited thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Upstream connections.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
}

impl InFlight {
    fn count(&self, what: Limited) -> &AtomicU32 {
        match what {
            Limited::Connections => &self.connections,
            Limited::Pending => &self.pending,
            Limited::Requests => &self.requests,
            Limited::Retries => &self.retries,
        }
    }

    /// How many there are.
    pub fn get(&self, what: Limited) -> u32 {
        self.count(what).load(Ordering::Relaxed)
    }
}

fn limit(config: &CircuitBreaker, what: Limited, active_requests: u32) -> u32 {
    match what {
        Limited::Connections => config.max_connections,
        Limited::Pending => config.max_pending_requests,
        Limited::Requests => config.max_requests,
        Limited::Retries => match config.retry_budget {
            Some((percent, least)) => {
                let share = f64::from(active_requests) * percent / 100.0;
                (share as u32).max(least)
            }
            None => config.max_retries,
        },
    }
}

/// Permission to have one more of a limited thing, given back on drop.
#[derive(Debug)]
pub struct Permit(Option<(Arc<InFlight>, Limited)>);

impl Permit {
    /// Asks for permission; `None` when the limit is reached.
    pub fn take(all: &Arc<InFlight>, config: &CircuitBreaker, what: Limited) -> Option<Self> {
        let most = limit(config, what, all.get(Limited::Requests));
        if most >= UNLIMITED {
            return Some(Self(None));
        }
        if all.count(what).fetch_add(1, Ordering::Relaxed) >= most {
            all.count(what).fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(Some((all.clone(), what))))
    }

    /// Permission where there is no limit.
    pub fn free() -> Self {
        Self(None)
    }

    /// Takes one whatever the limit says (a host's only connection).
    pub fn force(all: &Arc<InFlight>, config: &CircuitBreaker, what: Limited) -> Self {
        if limit(config, what, 0) >= UNLIMITED {
            return Self(None);
        }
        all.count(what).fetch_add(1, Ordering::Relaxed);
        Self(Some((all.clone(), what)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((all, what)) = &self.0 {
            all.count(*what).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A request that waits for a connection: holds its permit and its place in the
/// statistics until dropped.
#[derive(Debug)]
pub struct Pending {
    stats: Rc<ClusterStats>,
    _permit: Permit,
}

impl Pending {
    /// Counts one more, for which there is permission.
    pub fn new(permit: Permit, stats: &Rc<ClusterStats>) -> Self {
        stats.cells.upstream_rq_pending_total.inc();
        stats.cells.upstream_rq_pending_active.add(1);
        Self {
            stats: stats.clone(),
            _permit: permit,
        }
    }
}

/// A request (for TCP: a connection) that a cluster serves: holds its permit and its place in the
/// statistics until dropped.
#[derive(Debug)]
pub struct ActiveRequest {
    stats: Rc<ClusterStats>,
    _permit: Permit,
}

impl ActiveRequest {
    /// Counts one more, for which there is permission.
    pub fn new(permit: Permit, stats: &Rc<ClusterStats>) -> Self {
        stats.cells.upstream_rq_active.add(1);
        Self {
            stats: stats.clone(),
            _permit: permit,
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.stats.cells.upstream_rq_active.sub(1);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.stats.cells.upstream_rq_pending_active.sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_come_back() {
        let all = Arc::new(InFlight::default());
        let config = CircuitBreaker {
            max_requests: 2,
            ..CircuitBreaker::default()
        };
        let take = || Permit::take(&all, &config, Limited::Requests);
        let (one, two) = (take(), take());
        assert!(one.is_some() && two.is_some() && take().is_none());
        drop(one);
        assert!(take().is_some());
        assert_eq!(all.get(Limited::Requests), 1);
        let free = CircuitBreaker {
            max_requests: u32::MAX,
            ..CircuitBreaker::default()
        };
        let _free = Permit::take(&all, &free, Limited::Requests).unwrap();
        assert_eq!(all.get(Limited::Requests), 1, "no limit counts nothing");
    }
}
