//! Header edits of the configuration. Their values may look at the whole
//! record, the edited head included, so each value is made before it is
//! written.

use lateen_proxy_core::config::{HeaderMutation, Name};
use lateen_proxy_core::headers::HeadersMut;
use lateen_proxy_core::matcher::Headers;
use smallvec::SmallVec;

use super::head::Head;
use super::known::Known;
use super::record::StreamRecord;

impl Headers for Head {
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let mut found = false;
        self.each(name.as_bytes(), &mut |value| {
            found = visit(value);
            !found
        });
        found
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        Head::first(self, name.as_bytes())
    }

    fn known(&self, name: Known) -> Option<&[u8]> {
        Head::known(self, name)
    }

    fn count(&self, name: Known) -> usize {
        self.all_known(name).count()
    }
}

impl HeadersMut for Head {
    fn set(&mut self, name: &str, value: &[u8]) {
        match name {
            ":path" => self.set_path(value),
            ":method" => self.set_method(value),
            ":scheme" => self.set_scheme(value),
            ":authority" | "host" if self.status == 0 => self.set_authority(value),
            ":status" => {
                let status = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                self.status = status
                    .filter(|s| (200..600).contains(s))
                    .unwrap_or(self.status);
            }
            _ => Head::set(self, name.as_bytes(), value),
        }
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        if name.starts_with(':') || (name == "host" && self.status == 0) {
            return HeadersMut::set(self, name, value);
        }
        Head::add(self, name.as_bytes(), value);
    }

    fn remove(&mut self, name: &str) {
        Head::remove(self, name.as_bytes());
    }

    fn set_known(&mut self, name: Known, value: &[u8]) {
        Head::set_known(self, name, value);
    }

    fn remove_known(&mut self, name: Known) {
        Head::remove_known(self, name);
    }

    fn remove_all(&mut self, bits: u128) {
        Head::remove_all(self, bits);
    }
}

/// Which head of a record is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The request.
    Request,
    /// The response.
    Response,
}

impl Side {
    fn head(self, record: &mut StreamRecord) -> &mut Head {
        match self {
            Self::Request => &mut record.request,
            Self::Response => &mut record.response,
        }
    }
}

/// What becomes of one edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Skip,
    Set,
    Add,
}

/// Applies the edits of one level to one head of the record. All of them look at
/// the head as it was before; then headers are replaced, then added (as Envoy
/// does).
pub fn apply(record: &mut StreamRecord, side: Side, edits: &[HeaderMutation]) {
    if edits.is_empty() {
        return;
    }
    let values: SmallVec<[Option<Vec<u8>>; 8]> = edits
        .iter()
        .map(|edit| {
            let made = edit.value.as_literal().is_none();
            made.then(|| {
                let mut value = Vec::new();
                edit.value.write_header(record, &mut value);
                value
            })
        })
        .collect();
    let head = side.head(record);
    let value_of = |at: usize| -> &[u8] {
        let literal = edits[at].value.as_literal().unwrap_or_default();
        values[at].as_deref().unwrap_or(literal.as_bytes())
    };
    let plans: SmallVec<[Plan; 8]> = edits
        .iter()
        .enumerate()
        .map(|(at, edit)| plan(head, edit, value_of(at)))
        .collect();
    for step in [Plan::Set, Plan::Add] {
        for (at, _) in plans.iter().enumerate().filter(|(_, p)| **p == step) {
            let (name, value) = (header_name(&edits[at]), value_of(at));
            match step {
                Plan::Set if !name.starts_with(':') => {
                    head.remove(name.as_bytes());
                    Head::add(head, name.as_bytes(), value);
                }
                Plan::Set => HeadersMut::set(head, name, value),
                _ => HeadersMut::add(head, name, value),
            }
        }
    }
}

fn header_name(edit: &HeaderMutation) -> &str {
    match &*edit.name {
        "host" => ":authority",
        name => name,
    }
}

fn plan(head: &Head, edit: &HeaderMutation, value: &[u8]) -> Plan {
    use lateen_proxy_core::config::AppendAction as A;
    if value.is_empty() && !edit.keep_empty {
        return Plan::Skip;
    }
    let there = || Headers::first(head, header_name(edit)).is_some();
    match edit.action {
        A::AppendIfExistsOrAdd => Plan::Add,
        A::AddIfAbsent if there() => Plan::Skip,
        A::AddIfAbsent => Plan::Add,
        A::OverwriteIfExists if !there() => Plan::Skip,
        A::OverwriteIfExists | A::OverwriteIfExistsOrAdd => Plan::Set,
    }
}

/// Removes headers by name; pseudo headers and the host stay.
pub fn remove(head: &mut Head, names: &[Name]) {
    for name in names {
        head.remove(name.as_bytes());
    }
}
