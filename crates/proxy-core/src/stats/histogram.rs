//! Histograms over Envoy's default buckets. Counts are exact at the bucket bounds; quantiles are
//! interpolated inside a bucket.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds in the unit of the series (mostly milliseconds); one bucket beyond them.
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Quantiles that are printed.
pub const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.90, 0.95, 0.99, 0.995, 0.999, 1.0];

#[derive(Debug, Default)]
struct Cell {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum: AtomicU64,
    most: AtomicU64,
}

/// A histogram of one worker. Clones share the cell.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Cell>);

impl Histogram {
    /// Adds a value. Only one thread may add to a handle and its clones.
    pub fn record(&self, value: u64) {
        let at = BUCKETS.partition_point(|bound| *bound < value as f64);
        let add = |cell: &AtomicU64, n: u64| {
            cell.store(
                cell.load(Ordering::Relaxed).wrapping_add(n),
                Ordering::Relaxed,
            );
        };
        add(&self.0.buckets[at], 1);
        add(&self.0.sum, value);
        if value > self.0.most.load(Ordering::Relaxed) {
            self.0.most.store(value, Ordering::Relaxed);
        }
    }
}

/// A histogram as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// Counts per bucket, not cumulative; the last lies beyond all bounds.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// Number of values.
    pub count: u64,
    /// Sum of values.
    pub sum: u64,
    /// Largest value.
    pub most: u64,
}

/// Reads and sums the cells; those whose handles are gone become one.
pub(super) fn merge(list: &mut Vec<Histogram>) -> HistogramSnapshot {
    let mut total = HistogramSnapshot::default();
    let mut gone = HistogramSnapshot::default();
    let mut dead = 0;
    for cell in &*list {
        let read = cell.read();
        total.add(&read);
        if Arc::strong_count(&cell.0) == 1 {
            dead += 1;
            gone.add(&read);
        }
    }
    if dead > 1 {
        list.retain(|h| Arc::strong_count(&h.0) > 1);
        list.push(gone.into_cell());
    }
    total
}

impl Histogram {
    fn read(&self) -> HistogramSnapshot {
        let mut s = HistogramSnapshot::default();
        for (to, from) in s.buckets.iter_mut().zip(&self.0.buckets) {
            *to = from.load(Ordering::Relaxed);
        }
        s.count = s.buckets.iter().sum();
        s.sum = self.0.sum.load(Ordering::Relaxed);
        s.most = self.0.most.load(Ordering::Relaxed);
        s
    }
}

impl HistogramSnapshot {
    fn add(&mut self, other: &Self) {
        for (to, from) in self.buckets.iter_mut().zip(other.buckets) {
            *to += from;
        }
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.most = self.most.max(other.most);
    }

    fn into_cell(self) -> Histogram {
        let cell = Cell::default();
        for (to, from) in cell.buckets.iter().zip(self.buckets) {
            to.store(from, Ordering::Relaxed);
        }
        cell.sum.store(self.sum, Ordering::Relaxed);
        cell.most.store(self.most, Ordering::Relaxed);
        Histogram(Arc::new(cell))
    }

    /// An estimate of a quantile (0 to 1); none without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = q * self.count as f64;
        let mut below = 0.0;
        for (i, n) in self.buckets.iter().enumerate().filter(|(_, n)| **n > 0) {
            let n = *n as f64;
            if below + n >= rank {
                let low = if i == 0 { 0.0 } else { BUCKETS[i - 1] };
                let high = BUCKETS
                    .get(i)
                    .copied()
                    .unwrap_or(self.most as f64)
                    .min(self.most as f64)
                    .max(low);
                return Some(low + (high - low) * ((rank - below) / n).clamp(0.0, 1.0));
            }
            below += n;
        }
        Some(self.most as f64)
    }

    /// (bound, count at or below it) for every bucket.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut sum = 0;
        BUCKETS.iter().zip(&self.buckets).map(move |(bound, n)| {
            sum += n;
            (*bound, sum)
        })
    }
}
