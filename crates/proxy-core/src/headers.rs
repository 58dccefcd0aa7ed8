//! Header edits: the engine's header list behind one trait, and configured mutations applied to it.
use crate::access_log::Record;
use crate::config::headers::{AppendAction, HeaderMutation, HeaderMutations};
use crate::known::Known;
use crate::matcher::Headers;

/// Headers that can be edited. Names are lower-case; `:path` and `:authority` are set like headers.
pub trait HeadersMut: Headers {
    /// Replaces all lines by one.
    fn set(&mut self, name: &str, value: &[u8]);

    /// Adds a line.
    fn add(&mut self, name: &str, value: &[u8]);

    /// Takes all lines away.
    fn remove(&mut self, name: &str);

    /// Replaces all lines of a header that has a number by one.
    fn set_known(&mut self, name: Known, value: &[u8]) {
        self.set(name.name(), value);
    }

    /// Takes all lines of a header that has a number away.
    fn remove_known(&mut self, name: Known) {
        self.remove(name.name());
    }

    /// Takes away all lines of the headers with these [`Known::bit`]s.
    fn remove_all(&mut self, bits: u128) {
        for name in Known::of_bits(bits) {
            self.remove_known(name);
        }
    }
}

/// Which head is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The request on its way upstream.
    Request,
    /// The response on its way downstream.
    Response,
}

/// Applies the levels of a route. `levels` goes from the most specific (weighted cluster) to the
/// least specific (route table); by default the later, less specific one has the last word, with
/// `most_specific_wins` the other way round.
pub fn apply<H, R>(
    headers: &mut H,
    record: &R,
    levels: &[&HeaderMutations],
    most_specific_wins: bool,
    side: Side,
) where
    H: HeadersMut + ?Sized,
    R: Record + ?Sized,
{
    let count = levels.len();
    for i in 0..count {
        let level = levels[if most_specific_wins { count - 1 - i } else { i }];
        let (remove, add) = match side {
            Side::Request => (&level.request_remove, &level.request_add),
            Side::Response => (&level.response_remove, &level.response_add),
        };
        for name in remove {
            headers.remove(name);
        }
        for mutation in add {
            write(headers, record, mutation);
        }
    }
}

/// Applies one mutation.
pub fn write<H, R>(headers: &mut H, record: &R, mutation: &HeaderMutation)
where
    H: HeadersMut + ?Sized,
    R: Record + ?Sized,
{
    let made;
    let value = match mutation.value.as_literal() {
        Some(text) => text.as_bytes(),
        None => {
            let mut out = Vec::new();
            mutation.value.write_header(record, &mut out);
            made = out;
            &made[..]
        }
    };
    if value.is_empty() && !mutation.keep_empty {
        return;
    }
    let name = if &*mutation.name == "host" {
        ":authority"
    } else {
        &*mutation.name
    };
    let there = || headers.first(name).is_some();
    match mutation.action {
        // There is one path and one authority: appending would make two.
        AppendAction::AppendIfExistsOrAdd if name.starts_with(':') => headers.set(name, value),
        AppendAction::AppendIfExistsOrAdd => headers.add(name, value),
        AppendAction::AddIfAbsent if there() => {}
        AppendAction::AddIfAbsent => headers.add(name, value),
        AppendAction::OverwriteIfExistsOrAdd => headers.set(name, value),
        AppendAction::OverwriteIfExists if there() => headers.set(name, value),
        AppendAction::OverwriteIfExists => {}
    }
}

/// A plain header list, for tests and for callers that have no wire form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderList(pub Vec<(String, Vec<u8>)>);

impl Headers for HeaderList {
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .any(|(_, v)| visit(v))
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| &v[..])
    }
}

impl HeadersMut for HeaderList {
    fn set(&mut self, name: &str, value: &[u8]) {
        match self.0.iter().position(|(n, _)| n == name) {
            Some(at) => {
                self.0[at].1 = value.to_vec();
                let mut i = 0;
                self.0.retain(|(n, _)| {
                    i += 1;
                    n != name || i - 1 == at
                });
            }
            None => self.add(name, value),
        }
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_owned(), value.to_vec()));
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }
}

impl HeaderList {
    /// From text pairs.
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec()))
                .collect(),
        )
    }

    /// A header's lines joined by `|`, for tests.
    #[must_use]
    pub fn show(&self, name: &str) -> String {
        let lines = self
            .0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| String::from_utf8_lossy(v));
        lines.collect::<Vec<_>>().join("|")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access_log::{Field, FieldValue, Template, TimePoint};

    struct None_;
    impl Record for None_ {
        fn field(&self, _: Field) -> FieldValue<'_> {
            FieldValue::Missing
        }
        fn time(&self, _: TimePoint) -> Option<u64> {
            None
        }
    }

    fn level(name: &str, value: &str, action: AppendAction) -> HeaderMutations {
        HeaderMutations {
            request_add: vec![HeaderMutation {
                name: name.into(),
                value: Arc::new(Template::parse(value).unwrap()),
                action,
                keep_empty: false,
            }],
            ..HeaderMutations::default()
        }
    }

    #[test]
    fn actions_and_order() {
        use AppendAction as A;
        for (action, want) in [
            (A::AppendIfExistsOrAdd, "old|new"),
            (A::AddIfAbsent, "old"),
            (A::OverwriteIfExistsOrAdd, "new"),
            (A::OverwriteIfExists, "new"),
        ] {
            let mut h = HeaderList::of(&[("x", "old")]);
            apply(
                &mut h,
                &None_,
                &[&level("x", "new", action)],
                false,
                Side::Request,
            );
            assert_eq!(h.show("x"), want, "{action:?}");
        }
        let mut h = HeaderList::default();
        apply(
            &mut h,
            &None_,
            &[&level("x", "new", A::OverwriteIfExists)],
            false,
            Side::Request,
        );
        assert_eq!(h.show("x"), "");
        let (route, vhost) = (
            level("x", "route", A::OverwriteIfExistsOrAdd),
            level("x", "vhost", A::OverwriteIfExistsOrAdd),
        );
        for (specific, want) in [(false, "vhost"), (true, "route")] {
            let mut h = HeaderList::default();
            apply(&mut h, &None_, &[&route, &vhost], specific, Side::Request);
            assert_eq!(h.show("x"), want);
        }
        let mut h = HeaderList::of(&[(":authority", "a")]);
        apply(
            &mut h,
            &None_,
            &[&level("host", "b", A::AppendIfExistsOrAdd)],
            false,
            Side::Request,
        );
        assert_eq!(h.show(":authority"), "b");
        let mut h = HeaderList::default();
        apply(
            &mut h,
            &None_,
            &[&level("x", "%PROTOCOL%", A::AppendIfExistsOrAdd)],
            false,
            Side::Request,
        );
        assert!(h.0.is_empty(), "an empty value is not written");
    }
}
