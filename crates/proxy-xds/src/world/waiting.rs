//! What waits for what: fetches begin and end, resources whose needs are met go into service, and
//! what nobody needs any more is forgotten.

use std::collections::BTreeMap;

use lateen_proxy_core::config::Name;

use super::{Held, Now, World};
use crate::decode::Needs;
use crate::kind::Kind;

impl World {
    /// Whether resources of a wildcard type are warming.
    #[must_use]
    pub fn is_warming(&self, kind: Kind) -> bool {
        match kind {
            Kind::Cluster => !self.clusters.warming.is_empty(),
            Kind::Listener => !self.listeners.warming.is_empty(),
            _ => false,
        }
    }

    /// Starts and ends waits, moves what is ready into service, forgets what nobody needs.
    pub fn settle(&mut self, now: Now) {
        self.expire(now);
        self.notice_moves(now);
        // What a file brings may need others.
        loop {
            let read = self.read_files(now);
            self.promote(now);
            if !read {
                break;
            }
        }
        self.draining.settle(now);
        self.forget();
        self.forget_files();
    }

    /// Moves what has all that it needs into service.
    fn promote(&mut self, now: Now) {
        self.look_at_files(now);
        self.start_fetches(now);
        for (kind, name) in self.ready(Kind::Cluster) {
            if let Some(held) = self.clusters.warming.remove(&name) {
                self.clusters.active.insert(name, held);
                self.dirty.extend([kind, Kind::Endpoints]);
            }
        }
        for (kind, name) in self.ready(Kind::Listener) {
            if let Some(held) = self.listeners.warming.remove(&name) {
                if let Some(old) = self.listeners.active.insert(name, held) {
                    self.draining.begin(&old, now);
                }
                self.dirty.insert(kind);
            }
        }
    }

    fn expire(&mut self, now: Now) {
        let over: Vec<_> = self
            .fetches
            .iter()
            .filter(|(_, deadline)| deadline.is_some_and(|d| d <= now.mono_ms))
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            self.fetches.remove(&key);
            if key.0 == Kind::Secret {
                self.secret_timed_out(&key.1);
            }
            self.missing.insert(key);
        }
    }

    fn start_fetches(&mut self, now: Now) {
        let clusters = self.clusters.warming.values().map(|h| &h.needs);
        let listeners = self.listeners.warming.values().map(|h| &h.needs);
        let needs: Vec<(Kind, Needs)> = clusters
            .chain(listeners)
            .flat_map(|n| n.iter().cloned())
            .collect();
        for (kind, need) in needs {
            let key = (kind, need.name.clone());
            if !self.is_here(kind, &need.name) && !self.missing.contains(&key) {
                let deadline = (need.fetch_timeout_ms > 0)
                    .then(|| now.mono_ms.saturating_add(need.fetch_timeout_ms));
                self.fetches.entry(key).or_insert(deadline);
            }
        }
    }

    pub(super) fn is_here(&self, kind: Kind, name: &Name) -> bool {
        match kind {
            Kind::Endpoints => self.endpoints.contains_key(name),
            Kind::Routes => self.routes.contains_key(name),
            Kind::Secret => {
                self.secrets.active.contains_key(name) || self.secrets.fixed.contains_key(name)
            }
            Kind::Cluster | Kind::Listener => true,
        }
    }

    fn ready(&self, kind: Kind) -> Vec<(Kind, Name)> {
        let done = |needs: &[(Kind, Needs)]| {
            needs.iter().all(|(k, n)| {
                self.is_here(*k, &n.name) || self.missing.contains(&(*k, n.name.clone()))
            })
        };
        fn of<T>(
            map: &BTreeMap<Name, Held<T>>,
            kind: Kind,
            done: impl Fn(&[(Kind, Needs)]) -> bool,
        ) -> Vec<(Kind, Name)> {
            map.iter()
                .filter(|(_, h)| done(&h.needs))
                .map(|(name, _)| (kind, name.clone()))
                .collect()
        }
        match kind {
            Kind::Cluster => of(&self.clusters.warming, kind, done),
            Kind::Listener => of(&self.listeners.warming, kind, done),
            _ => vec![],
        }
    }

    fn forget(&mut self) {
        for kind in [Kind::Endpoints, Kind::Routes, Kind::Secret] {
            let wanted = self.needed(kind, |_| true);
            let before = self.endpoints.len() + self.routes.len() + self.secrets.active.len();
            match kind {
                Kind::Endpoints => self.endpoints.retain(|n, _| wanted.contains(n)),
                Kind::Routes => self.routes.retain(|n, _| wanted.contains(n)),
                _ => {
                    self.keep_updates(&wanted);
                    self.secrets.active.retain(|n, _| wanted.contains(n));
                }
            }
            if self.endpoints.len() + self.routes.len() + self.secrets.active.len() != before {
                self.dirty.insert(kind);
            }
            self.fetches
                .retain(|(k, n), _| *k != kind || wanted.contains(n));
            self.missing
                .retain(|(k, n)| *k != kind || wanted.contains(n));
        }
    }

    /// The next moment at which [`Self::settle`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let fetches = self.fetches.values().filter_map(|d| *d);
        let draining = self.draining.next_deadline();
        let looks = self.next_look().into_iter().chain(self.next_files_look());
        fetches.chain(draining).chain(looks).min()
    }
}
