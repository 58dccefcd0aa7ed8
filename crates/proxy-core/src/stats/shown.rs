//! Series that are shown before they are counted: Envoy shows every statistic of a thing from its
//! start. Here a series that never happened has no cell; a table of names stands for it, one for all
//! things of a kind.
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::{Metric, MetricValue, Scope, Series};

/// What a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesKind {
    /// Counter.
    Counter,
    /// Gauge.
    Gauge,
    /// Histogram.
    Histogram,
}

/// A series of a scope: its name within it, and its kind.
pub type Shown = (&'static str, SeriesKind);

/// The tables of the scopes that are shown.
#[derive(Debug, Default)]
pub(super) struct Tables(HashMap<Arc<str>, (Scope, Vec<&'static [Shown]>)>);

impl Tables {
    /// Shows a table's series under a scope.
    pub(super) fn add(&mut self, scope: &Scope, table: &'static [Shown]) {
        let entry = self.0.entry(scope.flat().into());
        let (_, tables) = entry.or_insert_with(|| (scope.clone(), vec![]));
        if !tables.iter().any(|t| std::ptr::eq(*t, table)) {
            tables.push(table);
        }
    }

    /// Forgets the scopes that begin so.
    pub(super) fn remove_prefix(&mut self, prefix: &str) {
        let below = |flat: &str| flat.starts_with(prefix) || flat == prefix.trim_end_matches('.');
        self.0.retain(|flat, _| !below(flat));
    }

    /// Adds what has no series yet and is to be kept.
    pub(super) fn fill(
        &self,
        series: &HashMap<Arc<str>, Series>,
        keep: impl Fn(&str) -> bool,
        to: &mut Vec<Metric>,
    ) {
        let mut added = HashSet::new();
        for (scope, tables) in self.0.values() {
            for (name, kind) in tables.iter().copied().flatten() {
                let name = scope.stat(name);
                if series.contains_key(&name.flat)
                    || !keep(&name.flat)
                    || !added.insert(name.flat.clone())
                {
                    continue;
                }
                let value = match kind {
                    SeriesKind::Counter => MetricValue::Counter(0),
                    SeriesKind::Gauge => MetricValue::Gauge(0),
                    SeriesKind::Histogram => MetricValue::Histogram(Box::default()),
                };
                to.push(Metric {
                    name,
                    value,
                    used: false,
                });
            }
        }
    }
}
