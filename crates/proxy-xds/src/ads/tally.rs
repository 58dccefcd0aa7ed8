//! What became of each subscription of the ADS stream, by resource name: the numbers of Envoy's
//! subscription statistics.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lateen_proxy_core::config::Name;

use crate::kind::Kind;

/// One subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribed {
    /// Responses with it that were accepted.
    pub accepted: u64,
    /// Responses with it that were refused, whatever was wrong in them.
    pub rejected: u64,
    /// Streams that ended or never opened.
    pub failed: u64,
    /// When the last response was accepted, Unix milliseconds; 0 = none was.
    pub updated_ms: u64,
    /// Accepted responses in which it was another than before; of route tables only.
    pub changes: u64,
    /// When the last of them came, Unix milliseconds; 0 = none did.
    pub changed_ms: u64,
    hash: u64,
}

impl Subscribed {
    /// How often an update was waited for: from the begin, and after each that came or failed.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        1 + self.accepted + self.rejected + self.failed
    }
}

/// All subscriptions to named resources. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<[HashMap<Name, Subscribed>; 5]>>);

impl Tally {
    fn all(&self) -> MutexGuard<'_, [HashMap<Name, Subscribed>; 5]> {
        // Each number is whole at any moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are subscribed to, and no others.
    pub(super) fn wants(&self, kind: Kind, names: &BTreeSet<Name>) {
        let of = &mut self.all()[kind as usize];
        of.retain(|name, _| names.contains(name));
        for name in names {
            if !of.contains_key(name) {
                of.insert(name.clone(), Subscribed::default());
            }
        }
    }

    /// A response came with these, each with its bytes; `unix_ms` = now.
    pub(super) fn came<'r>(
        &self,
        kind: Kind,
        resources: impl IntoIterator<Item = (Name, &'r [u8])>,
        refused: bool,
        unix_ms: u64,
    ) {
        let of = &mut self.all()[kind as usize];
        for (name, raw) in resources {
            let Some(one) = of.get_mut(&name) else {
                continue;
            };
            if refused {
                one.rejected += 1;
                continue;
            }
            one.accepted += 1;
            one.updated_ms = unix_ms;
            if kind == Kind::Routes {
                let mut hasher = DefaultHasher::new();
                raw.hash(&mut hasher);
                let hash = hasher.finish();
                if one.changes == 0 || one.hash != hash {
                    one.hash = hash;
                    one.changes += 1;
                    one.changed_ms = unix_ms;
                }
            }
        }
    }

    /// The stream ended, or never opened.
    pub(super) fn failed(&self) {
        for one in self.all().iter_mut().flat_map(HashMap::values_mut) {
            one.failed += 1;
        }
    }

    /// What became of one; none = it is not subscribed to.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<Subscribed> {
        self.all()[kind as usize].get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subscription_has_its_own_numbers() {
        let tally = Tally::default();
        let names = |list: &[&str]| list.iter().map(|n| Name::from(*n)).collect();
        let came = |list: &[(&str, &'static str)], refused, ms| {
            let all = list.iter().map(|(n, raw)| (Name::from(*n), raw.as_bytes()));
            tally.came(Kind::Routes, all, refused, ms);
        };
        tally.wants(Kind::Routes, &names(&["a", "b"]));
        came(&[("a", "1"), ("b", "1"), ("stranger", "1")], false, 10);
        came(&[("a", "1")], false, 20);
        came(&[("a", "2")], false, 30);
        came(&[("a", "3")], true, 40);
        tally.failed();
        let a = tally.get(Kind::Routes, "a").unwrap();
        assert_eq!((a.accepted, a.rejected, a.failed), (3, 1, 1));
        assert_eq!(a.attempts(), 6);
        assert_eq!((a.updated_ms, a.changes, a.changed_ms), (30, 2, 30));
        let b = tally.get(Kind::Routes, "b").unwrap();
        assert_eq!((b.attempts(), b.accepted, b.changes), (3, 1, 1));
        assert_eq!(tally.get(Kind::Endpoints, "a"), None);
        assert_eq!(tally.get(Kind::Routes, "stranger"), None);
        tally.wants(Kind::Routes, &names(&["b"]));
        assert_eq!(tally.get(Kind::Routes, "a"), None);
        assert_eq!(tally.get(Kind::Routes, "b"), Some(b));
    }
}
