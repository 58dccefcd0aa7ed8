//! How traffic is shared between priorities, and which of them are in panic.

/// Hosts of one priority by health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriorityHealth {
    /// Healthy hosts.
    pub healthy: usize,
    /// Degraded hosts.
    pub degraded: usize,
    /// All hosts that count: those that were not looked at yet do not.
    pub total: usize,
}

/// Shares of the priorities in percent; healthy and degraded shares sum to 100 when there is a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorityLoad {
    /// Share sent to healthy hosts.
    pub healthy: Vec<u32>,
    /// Share sent to degraded hosts.
    pub degraded: Vec<u32>,
    /// All hosts of the priority are used, healthy or not.
    pub panic: Vec<bool>,
}

impl PriorityLoad {
    /// The priority for a number below 100, and whether its degraded hosts are meant.
    #[must_use]
    pub fn choose(&self, place: u64) -> Option<(usize, bool)> {
        let mut at = u32::try_from(place).unwrap_or(99);
        for (list, degraded) in [(&self.healthy, false), (&self.degraded, true)] {
            for (priority, share) in list.iter().enumerate() {
                if at < *share {
                    return Some((priority, degraded));
                }
                at -= share;
            }
        }
        None
    }
}

/// Computes the shares: a priority takes `overprovisioning * healthy` percent of what the better
/// ones left; degraded hosts come after all healthy ones; below the panic threshold all hosts count.
#[must_use]
pub fn priority_load(
    health: &[PriorityHealth],
    overprovisioning: u32,
    panic_threshold: f64,
) -> PriorityLoad {
    let available = |hosts: usize, total: usize| -> u32 {
        if total == 0 {
            return 0;
        }
        let percent = u64::from(overprovisioning) * hosts as u64 / total as u64;
        u32::try_from(percent.min(100)).unwrap_or(100)
    };
    let healthy: Vec<u32> = health
        .iter()
        .map(|h| available(h.healthy, h.total))
        .collect();
    let degraded: Vec<u32> = health
        .iter()
        .map(|h| available(h.degraded, h.total))
        .collect();
    let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    let mut load = PriorityLoad {
        healthy: vec![0; health.len()],
        degraded: vec![0; health.len()],
        panic: vec![false; health.len()],
    };
    if health.iter().all(|h| h.total == 0) {
        return load;
    }
    if total > 0 {
        share_out(&healthy, &degraded, total, &mut load);
    }
    if total < 100 {
        for (panic, h) in load.panic.iter_mut().zip(health) {
            let percent = if h.total == 0 {
                0.0
            } else {
                (h.healthy + h.degraded) as f64 * 100.0 / h.total as f64
            };
            *panic = percent < panic_threshold;
        }
        if load.panic.iter().all(|p| *p) {
            by_host_count(health, &mut load);
        } else if total == 0 {
            load.healthy[0] = 100;
        }
    }
    load
}

fn share_out(healthy: &[u32], degraded: &[u32], total: u32, load: &mut PriorityLoad) {
    let mut left = 100;
    for (have, out) in [(healthy, &mut load.healthy), (degraded, &mut load.degraded)] {
        for (have, share) in have.iter().zip(out.iter_mut()) {
            *share = left.min(have * 100 / total);
            left -= *share;
        }
    }
    // Rounding leaves a few percent: the first priority that takes any gets them.
    let first = load
        .healthy
        .iter_mut()
        .chain(load.degraded.iter_mut())
        .find(|share| **share > 0);
    if let Some(first) = first {
        *first += left;
    }
}

/// Every priority is in panic: shares follow the number of hosts.
fn by_host_count(health: &[PriorityHealth], load: &mut PriorityLoad) {
    let hosts: usize = health.iter().map(|h| h.total).sum();
    let mut left = 100;
    for (share, h) in load.healthy.iter_mut().zip(health) {
        *share = u32::try_from(h.total * 100 / hosts.max(1)).unwrap_or(0);
        left -= *share;
    }
    load.degraded.iter_mut().for_each(|share| *share = 0);
    if let Some(first) = load.healthy.iter_mut().find(|share| **share > 0) {
        *first += left;
    }
}
