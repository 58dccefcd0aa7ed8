//! Parameters of a query, set and taken out. What is not named stays as it came.
use std::borrow::Cow;

use crate::config::Name;

/// Which parameters are set, then which are taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryEdits {
    /// Names and values; a value stands in the place of the first of its name, the others go.
    pub set: Vec<(Name, Name)>,
    /// Names.
    pub remove: Vec<Name>,
}

impl QueryEdits {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// The path with its query changed. Names and values are written as they are.
    #[must_use]
    pub fn path(&self, path: &[u8]) -> Vec<u8> {
        let (base, query) = match memchr::memchr(b'?', path) {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (path, &b""[..]),
        };
        let named = |parameter: &[u8], name: &Name| {
            let end = memchr::memchr(b'=', parameter).unwrap_or(parameter.len());
            parameter[..end] == *name.as_bytes()
        };
        let parts = query.split(|b| *b == b'&').filter(|p| !p.is_empty());
        let mut parts: Vec<Cow<'_, [u8]>> = parts.map(Cow::Borrowed).collect();
        for (name, value) in &self.set {
            let new = Cow::Owned([name.as_bytes(), b"=", value.as_bytes()].concat());
            let first = parts.iter().position(|p| named(p, name));
            let mut at = 0;
            parts.retain(|p| {
                at += 1;
                Some(at - 1) == first || !named(p, name)
            });
            match first {
                Some(first) => parts[first] = new,
                None => parts.push(new),
            }
        }
        for name in &self.remove {
            parts.retain(|p| !named(p, name));
        }
        let mut out = base.to_vec();
        for (part, mark) in parts
            .iter()
            .zip(std::iter::once(b'?').chain(std::iter::repeat(b'&')))
        {
            out.push(mark);
            out.extend_from_slice(part);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        for (path, set, remove, want) in [
            ("/x", &[("a", "1")][..], &[][..], "/x?a=1"),
            ("/x?a=0&b=2&a=3", &[("a", "1")], &[], "/x?a=1&b=2"),
            ("/x?b=2&a&b=3", &[("c", "")], &["b"], "/x?a&c="),
            ("/x?ab=1&=2", &[], &["a", "b"], "/x?ab=1&=2"),
            ("/x?a=1", &[], &["a"], "/x"),
            ("/x?", &[], &["a"], "/x"),
            ("/x?a=1", &[("b", "1")], &["b"], "/x?a=1"),
            ("/x?a=b?c=d", &[("a", "z")], &[], "/x?a=z"),
        ] {
            let edits = QueryEdits {
                set: set
                    .iter()
                    .map(|(k, v)| ((*k).into(), (*v).into()))
                    .collect(),
                remove: remove.iter().map(|name| (*name).into()).collect(),
            };
            let made = String::from_utf8(edits.path(path.as_bytes())).unwrap();
            assert_eq!(made, want, "{path}");
        }
    }
}
