//! Statistics: names with tags, one cell per worker and series, merged when read.
//! A cell is an atomic with a single writer: adding is a relaxed load and store, no locked
//! instruction; handles are resolved at configuration time or first use.
mod histogram;
mod name;
mod shown;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

pub use histogram::{BUCKETS, Histogram, HistogramSnapshot, QUANTILES};
pub use name::{Scope, StatName};
pub use shown::{SeriesKind, Shown};
pub use text::{quantiles, write_prometheus, write_text};

/// All series of the process.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    series: HashMap<Arc<str>, Series>,
    shown: shown::Tables,
    /// Names of which no series is made.
    reject: Option<Matcher>,
}

/// Which series are kept.
struct Matcher(Box<dyn Fn(&str) -> bool + Send + Sync>);

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Matcher")
    }
}

#[derive(Debug)]
struct Series {
    name: StatName,
    cells: Cells,
    /// Sum at the last reset, taken off when read.
    base: u64,
}

#[derive(Debug)]
enum Cells {
    Counter(Vec<Arc<AtomicU64>>),
    Gauge(Vec<Arc<AtomicU64>>),
    Histogram(Vec<Histogram>),
}

/// A counter of one worker. Clones share the cell.
#[derive(Clone, Debug)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds. Only one thread may add to a handle and its clones.
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// This worker's count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A gauge of one worker; the sum over the workers is what is read. Clones share the cell.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<AtomicU64>);

/// Set in a gauge's cell once it was written; the value is the low 63 bits, two's complement.
const USED: u64 = 1 << 63;

impl Gauge {
    fn update(&self, f: impl FnOnce(i64) -> i64) {
        let value = f(gauge_value(self.0.load(Ordering::Relaxed)));
        self.0
            .store(value.cast_unsigned() & !USED | USED, Ordering::Relaxed);
    }

    /// Adds. Only one thread may write to a handle and its clones.
    pub fn add(&self, n: i64) {
        self.update(|v| v.wrapping_add(n));
    }

    /// Takes off.
    pub fn sub(&self, n: i64) {
        self.add(-n);
    }

    /// Sets this worker's part.
    pub fn set(&self, n: i64) {
        self.update(|_| n);
    }

    /// This worker's part.
    #[must_use]
    pub fn get(&self) -> i64 {
        gauge_value(self.0.load(Ordering::Relaxed))
    }
}

/// Sign-extends the 63 value bits.
fn gauge_value(cell: u64) -> i64 {
    (cell << 1).cast_signed() >> 1
}

/// A series as it was read.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Names and tags.
    pub name: StatName,
    /// Sum over the workers.
    pub value: MetricValue,
    /// Whether it was ever written.
    pub used: bool,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// Counter.
    Counter(u64),
    /// Gauge.
    Gauge(i64),
    /// Histogram.
    Histogram(Box<HistogramSnapshot>),
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets which flat names are kept. Handles of others work but are not read.
    pub fn keep(&self, keep: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.lock().reject = Some(Matcher(Box::new(keep)));
    }

    /// Whether a series of that flat name is kept.
    #[must_use]
    pub fn keeps(&self, flat: &str) -> bool {
        self.lock().reject.as_ref().is_none_or(|m| (m.0)(flat))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A panicked holder leaves the map whole: every write to it is one insertion.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell<T: Clone>(
        &self,
        name: &StatName,
        detached: impl Fn() -> T,
        empty: impl FnOnce() -> Cells,
        push: impl FnOnce(&mut Cells, &T) -> bool,
    ) -> T {
        let cell = detached();
        let mut inner = self.lock();
        if inner.reject.as_ref().is_some_and(|m| !(m.0)(&name.flat)) {
            return cell;
        }
        let series = inner
            .series
            .entry(name.flat.clone())
            .or_insert_with(|| Series {
                name: name.clone(),
                cells: empty(),
                base: 0,
            });
        // A name used for two kinds keeps the first kind; the other handle is not read.
        push(&mut series.cells, &cell);
        cell
    }

    /// A new counter cell of a series.
    #[must_use]
    pub fn counter(&self, name: &StatName) -> Counter {
        Counter(self.cell(
            name,
            Default::default,
            || Cells::Counter(vec![]),
            |cells, cell: &Arc<AtomicU64>| match cells {
                Cells::Counter(list) => {
                    list.push(cell.clone());
                    true
                }
                _ => false,
            },
        ))
    }

    /// A new gauge cell of a series.
    #[must_use]
    pub fn gauge(&self, name: &StatName) -> Gauge {
        Gauge(self.cell(
            name,
            Default::default,
            || Cells::Gauge(vec![]),
            |cells, cell: &Arc<AtomicU64>| match cells {
                Cells::Gauge(list) => {
                    list.push(cell.clone());
                    true
                }
                _ => false,
            },
        ))
    }

    /// A new histogram cell of a series.
    #[must_use]
    pub fn histogram(&self, name: &StatName) -> Histogram {
        self.cell(
            name,
            Histogram::default,
            || Cells::Histogram(vec![]),
            |cells, cell| match cells {
                Cells::Histogram(list) => {
                    list.push(cell.clone());
                    true
                }
                _ => false,
            },
        )
    }

    /// Reads all series, sorted by flat name. Cells whose handles are gone are folded into one, so
    /// that what was counted stays.
    #[must_use]
    pub fn collect(&self) -> Vec<Metric> {
        let mut inner = self.lock();
        let mut list: Vec<Metric> = inner.series.values_mut().map(Series::read).collect();
        let inner = &*inner;
        let keep = |name: &str| inner.reject.as_ref().is_none_or(|m| (m.0)(name));
        inner.shown.fill(&inner.series, keep, &mut list);
        list.sort_by(|a, b| a.name.flat.cmp(&b.name.flat));
        list
    }

    /// Shows the series of a table under a scope with the value zero as long as they have no cell.
    pub fn show(&self, scope: &Scope, table: &'static [Shown]) {
        self.lock().shown.add(scope, table);
    }

    /// Forgets all series with this prefix of the flat name (a removed cluster or listener).
    pub fn remove_prefix(&self, prefix: &str) {
        let mut inner = self.lock();
        inner.series.retain(|name, _| !name.starts_with(prefix));
        inner.shown.remove_prefix(prefix);
    }

    /// Starts all counters over at zero.
    pub fn reset_counters(&self) {
        for series in self.lock().series.values_mut() {
            if let Cells::Counter(list) = &series.cells {
                series.base = sum(list);
            }
        }
    }
}

fn sum(list: &[Arc<AtomicU64>]) -> u64 {
    list.iter()
        .fold(0, |acc: u64, c| acc.wrapping_add(c.load(Ordering::Relaxed)))
}

impl Series {
    fn read(&mut self) -> Metric {
        let (value, used) = match &mut self.cells {
            Cells::Counter(list) => {
                fold(list, |a, b| a.wrapping_add(b));
                let total = sum(list);
                (
                    MetricValue::Counter(total.wrapping_sub(self.base)),
                    total > 0,
                )
            }
            Cells::Gauge(list) => {
                // A gauge part whose owner is gone counts nothing any more.
                let used = list.iter().any(|c| c.load(Ordering::Relaxed) & USED != 0);
                if list.len() > 1 {
                    list.retain(|c| Arc::strong_count(c) > 1);
                }
                let total = list
                    .iter()
                    .map(|c| gauge_value(c.load(Ordering::Relaxed)))
                    .sum();
                (MetricValue::Gauge(total), used)
            }
            Cells::Histogram(list) => {
                let snapshot = histogram::merge(list);
                let used = snapshot.count > 0;
                (MetricValue::Histogram(Box::new(snapshot)), used)
            }
        };
        Metric {
            name: self.name.clone(),
            value,
            used,
        }
    }
}

/// Joins cells whose handles are gone into the first cell of that kind.
fn fold(list: &mut Vec<Arc<AtomicU64>>, join: impl Fn(u64, u64) -> u64) {
    let gone = |c: &Arc<AtomicU64>| Arc::strong_count(c) == 1;
    if list.iter().filter(|c| gone(c)).count() < 2 {
        return;
    }
    let total = list
        .iter()
        .filter(|c| gone(c))
        .fold(0, |acc, c| join(acc, c.load(Ordering::Relaxed)));
    list.retain(|c| !gone(c));
    list.push(Arc::new(AtomicU64::new(total)));
}

#[cfg(test)]
mod tests;
