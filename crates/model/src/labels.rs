//! Labels and equality selectors.

use crate::Str;
use std::collections::BTreeMap;

/// Labels of an object, sorted by key.
pub type Labels = BTreeMap<Str, Str>;

/// An equality selector: every pair must be present.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selector(pub Labels);

impl Selector {
    /// True when every pair of the selector is among `labels`. An empty
    /// selector matches everything; callers decide whether emptiness means
    /// "all" or "none" for their kind.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(k, v)| labels.get(k) == Some(v))
    }

    /// True when there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Str>, V: Into<Str>> FromIterator<(K, V)> for Selector {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(iter: T) -> Self {
        Self(
            iter.into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        )
    }
}
