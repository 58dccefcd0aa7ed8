//! The fields of a metadata object: names with values, sorted, in one run of memory. Objects are
//! small, and there is one or more for each service, so a tree's nodes would be most of it.
use super::{Name, Value};

/// Names with values, each name once, sorted by name.
#[derive(Clone, Default, PartialEq)]
pub struct Fields(Vec<(Name, Value)>);

impl Fields {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(have, _)| (**have).cmp(name))
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.find(name).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// The value of a name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.find(name).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Whether there is such a name.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Sets a value; the one before, if any. Costs a walk over what follows: [`FromIterator`] is for
    /// many.
    pub fn insert(&mut self, name: Name, value: Value) -> Option<Value> {
        match self.find(&name) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (name, value));
                None
            }
        }
    }

    /// The value of a name, null where there was none.
    pub fn or_null(&mut self, name: &str) -> &mut Value {
        let at = match self.find(name) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (name.into(), Value::Null));
                at
            }
        };
        &mut self.0[at].1
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, by name.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        self.into_iter()
    }

    /// The names.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Name> + Clone {
        self.0.iter().map(|(name, _)| name)
    }

    /// The values, by name.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> + Clone {
        self.0.iter().map(|(_, value)| value)
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// Of names that come more than once the last holds.
impl FromIterator<(Name, Value)> for Fields {
    fn from_iter<I: IntoIterator<Item = (Name, Value)>>(fields: I) -> Self {
        let mut all: Vec<_> = fields.into_iter().collect();
        // The sort is stable, so the last of equals stands last.
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                std::mem::swap(next, kept);
            }
            same
        });
        all.shrink_to_fit();
        Self(all)
    }
}

impl<const N: usize> From<[(Name, Value); N]> for Fields {
    fn from(fields: [(Name, Value); N]) -> Self {
        fields.into_iter().collect()
    }
}

impl Extend<(Name, Value)> for Fields {
    fn extend<I: IntoIterator<Item = (Name, Value)>>(&mut self, fields: I) {
        let own = std::mem::take(&mut self.0);
        *self = own.into_iter().chain(fields).collect();
    }
}

impl IntoIterator for Fields {
    type Item = (Name, Value);
    type IntoIter = std::vec::IntoIter<(Name, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Names with their values.
#[derive(Clone, Debug)]
pub struct Iter<'a>(std::slice::Iter<'a, (Name, Value)>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Name, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Fields {
    type Item = (&'a Name, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter(self.0.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn does_what_a_tree_does(steps in proptest::collection::vec((0u8..8, 0u8..40), 0..40)) {
            let name = |n: u8| Name::from(n.to_string());
            let value = |n: u8| Value::Number(n.into());
            let all = steps.iter().map(|(n, v)| (name(*n), value(*v)));
            let mut tree: BTreeMap<Name, Value> = all.clone().collect();
            let mut fields: Fields = all.clone().collect();
            prop_assert!(fields.iter().eq(tree.iter()));
            for (n, v) in &steps {
                let (n, v) = (name(n % 3), value(v / 2));
                prop_assert_eq!(fields.insert(n.clone(), v.clone()), tree.insert(n, v));
            }
            fields.extend(all.clone());
            tree.extend(all);
            prop_assert!(fields.iter().eq(tree.iter()));
            prop_assert_eq!(fields.len(), tree.len());
            for n in 0..9 {
                let n = name(n);
                prop_assert_eq!(fields.get(&n), tree.get(&n));
                prop_assert_eq!(fields.contains_key(&n), tree.contains_key(&n));
                *fields.or_null(&n) = Value::Null;
                *tree.entry(n).or_default() = Value::Null;
            }
            prop_assert!(fields.into_iter().eq(tree));
        }
    }
}
