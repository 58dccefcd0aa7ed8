//! Route tables of listeners that go: their connections live on until they have drained, and the
//! requests that come over them meanwhile are routed. So the tables stay, and stay asked for.

use std::collections::BTreeSet;

use lateen_proxy_core::config::Name;

use super::{Held, Now};
use crate::kind::Kind;

/// Envoy's `--drain-time-s` where nothing else is said.
const DRAIN_MS: u64 = 600_000;

/// Tables by the moment until which they may be needed, monotonic milliseconds.
#[derive(Debug)]
pub(super) struct Draining {
    time_ms: u64,
    tables: Vec<(u64, BTreeSet<Name>)>,
}

impl Default for Draining {
    fn default() -> Self {
        Self {
            time_ms: DRAIN_MS,
            tables: Vec::new(),
        }
    }
}

impl Draining {
    /// How long connections of a listener that goes may live.
    pub(super) fn set_time(&mut self, ms: u64) {
        self.time_ms = ms;
    }

    /// A listener begins to drain.
    pub(super) fn begin<T>(&mut self, listener: &Held<T>, now: Now) {
        let tables: BTreeSet<Name> = listener
            .needs
            .iter()
            .filter(|(kind, _)| *kind == Kind::Routes)
            .map(|(_, need)| need.name.clone())
            .collect();
        // One that goes again and again asks for the same tables.
        self.tables.retain(|(_, names)| !names.is_subset(&tables));
        if !tables.is_empty() {
            let until = now.mono_ms.saturating_add(self.time_ms);
            self.tables.push((until, tables));
        }
    }

    /// Forgets what has drained.
    pub(super) fn settle(&mut self, now: Now) {
        self.tables.retain(|(until, _)| *until > now.mono_ms);
    }

    /// Tables that may still be needed, by their keys.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Name> {
        self.tables.iter().flat_map(|(_, names)| names)
    }

    /// The next moment at which something has drained.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.tables.iter().map(|(until, _)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decode::Needs;

    fn listener(tables: &[&str]) -> Held<()> {
        let need = |name: &&str| {
            let need = Needs {
                name: (*name).into(),
                fetch_timeout_ms: 0,
                source: Default::default(),
            };
            (Kind::Routes, need)
        };
        Held {
            value: Arc::new(()),
            raw: [].as_slice().into(),
            version: Name::default(),
            updated_ms: 0,
            accepted: true,
            fixed: false,
            needs: tables.iter().map(need).collect(),
        }
    }

    #[test]
    fn tables_stay_for_the_drain_time() {
        let at = |mono_ms| Now {
            mono_ms,
            unix_ms: 0,
        };
        let wanted = |d: &Draining| d.wanted().map(ToString::to_string).collect::<Vec<_>>();
        let mut draining = Draining::default();
        draining.set_time(100);
        draining.begin(&listener(&["a"]), at(0));
        draining.begin(&listener(&["b"]), at(50));
        draining.begin(&listener(&[]), at(60));
        assert_eq!(wanted(&draining), ["a", "b"]);
        assert_eq!(draining.next_deadline(), Some(100));
        draining.settle(at(100));
        assert_eq!(wanted(&draining), ["b"]);
        for again in 0..1000 {
            draining.begin(&listener(&["b"]), at(again));
        }
        assert_eq!(
            draining.tables.len(),
            1,
            "a listener that flaps grows nothing"
        );
        draining.settle(at(1099));
        assert_eq!(
            (wanted(&draining).len(), draining.next_deadline()),
            (0, None)
        );
    }
}
