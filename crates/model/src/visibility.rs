//! `exportTo`: the namespaces that may see an object.

use crate::Str;
use std::collections::BTreeSet;

/// Who sees an object. `.` is resolved to the object's namespace when compiled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ExportTo {
    /// `*`: every namespace.
    #[default]
    All,
    /// Only these namespaces; empty means nobody (`~`).
    Namespaces(BTreeSet<Str>),
}

impl ExportTo {
    /// Reads an `exportTo` list of an object in `namespace`; an empty list is `fallback`.
    pub fn parse<'a>(
        list: impl IntoIterator<Item = &'a str>,
        namespace: &str,
        fallback: &ExportTo,
    ) -> Self {
        let mut set = BTreeSet::new();
        let mut any = false;
        for entry in list {
            any = true;
            match entry {
                "*" => return ExportTo::All,
                "." => {
                    set.insert(Str::from(namespace));
                }
                "~" => {}
                other => {
                    set.insert(Str::from(other));
                }
            }
        }
        if any {
            return ExportTo::Namespaces(set);
        }
        match fallback {
            // A mesh-wide default of `.` means each object's own namespace.
            ExportTo::Namespaces(set) if set.contains(".") => {
                let own = |n: &Str| {
                    if &**n == "." {
                        Str::from(namespace)
                    } else {
                        n.clone()
                    }
                };
                ExportTo::Namespaces(set.iter().map(own).collect())
            }
            other => other.clone(),
        }
    }

    /// True when `namespace` may see the object.
    pub fn visible_in(&self, namespace: &str) -> bool {
        match self {
            ExportTo::All => true,
            ExportTo::Namespaces(set) => set.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_star_tilde() {
        let p = |l: &[&str]| ExportTo::parse(l.iter().copied(), "a", &ExportTo::All);
        assert_eq!(p(&[]), ExportTo::All);
        assert!(p(&["."]).visible_in("a") && !p(&["."]).visible_in("b"));
        assert!(p(&[".", "*"]).visible_in("b"));
        assert!(!p(&["~"]).visible_in("a"));
        assert!(p(&["b"]).visible_in("b") && !p(&["b"]).visible_in("a"));
        let own = ExportTo::Namespaces([".".into()].into());
        assert!(ExportTo::parse([], "c", &own).visible_in("c"));
    }
}
