//! Header edits of the configuration. Their values may look at the whole
//! record, the edited head included, so each value is made before it is
//! written.

use lateen_proxy_core::config::{HeaderMutation, Name};
use lateen_proxy_core::headers::HeadersMut;
use lateen_proxy_core::matcher::Headers;

use super::head::Head;
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

/// Applies edits to one head of the record.
pub fn apply(record: &mut StreamRecord, side: Side, edits: &[HeaderMutation]) {
    for edit in edits {
        if let Some(text) = edit.value.as_literal() {
            write(side.head(record), edit, text.as_bytes());
            continue;
        }
        let mut value = Vec::new();
        edit.value.write_header(record, &mut value);
        write(side.head(record), edit, &value);
    }
}

fn write(head: &mut Head, edit: &HeaderMutation, value: &[u8]) {
    use lateen_proxy_core::config::AppendAction as A;
    if value.is_empty() && !edit.keep_empty {
        return;
    }
    let name = if &*edit.name == "host" {
        ":authority"
    } else {
        &*edit.name
    };
    let there = Headers::first(head, name).is_some();
    match edit.action {
        A::AppendIfExistsOrAdd => HeadersMut::add(head, name, value),
        A::AddIfAbsent if there => {}
        A::AddIfAbsent => HeadersMut::add(head, name, value),
        A::OverwriteIfExists if !there => {}
        A::OverwriteIfExists | A::OverwriteIfExistsOrAdd => HeadersMut::set(head, name, value),
    }
}

/// Removes headers by name; pseudo headers and the host stay.
pub fn remove(head: &mut Head, names: &[Name]) {
    for name in names {
        head.remove(name.as_bytes());
    }
}
