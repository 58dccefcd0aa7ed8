//! Header edits as configuration: what to remove, what to add and how.
use std::sync::Arc;

use super::{Name, Usual};
use crate::access_log::Template;

/// What to do when the header is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AppendAction {
    /// One more line (Envoy's default).
    #[default]
    AppendIfExistsOrAdd,
    /// Only when absent.
    AddIfAbsent,
    /// Replace all lines, or add.
    OverwriteIfExistsOrAdd,
    /// Replace all lines, only when present.
    OverwriteIfExists,
}

/// One header to write.
#[derive(Clone, Debug)]
pub struct HeaderMutation {
    /// Lower-case name; `host` is written as `:authority`.
    pub name: Name,
    /// Compiled value: literal text and access-log operators.
    pub value: Arc<Template>,
    /// What to do when the header is there already.
    pub action: AppendAction,
    /// Write the header even if the value came out empty.
    pub keep_empty: bool,
}

/// Edits of one level (weighted cluster, route, virtual host, route configuration).
/// Removal comes first, then additions in order.
#[derive(Clone, Debug, Default)]
pub struct HeaderMutations {
    /// Request headers to remove, lower-case.
    pub request_remove: Vec<Name>,
    /// Request headers to write.
    pub request_add: Vec<HeaderMutation>,
    /// Response headers to remove, lower-case.
    pub response_remove: Vec<Name>,
    /// Response headers to write.
    pub response_add: Vec<HeaderMutation>,
}

impl HeaderMutations {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.request_remove.is_empty()
            && self.request_add.is_empty()
            && self.response_remove.is_empty()
            && self.response_add.is_empty()
    }
}

impl Usual for HeaderMutations {
    fn usual() -> &'static Self {
        static NONE: HeaderMutations = HeaderMutations {
            request_remove: Vec::new(),
            request_add: Vec::new(),
            response_remove: Vec::new(),
            response_add: Vec::new(),
        };
        &NONE
    }

    fn is_usual(&self) -> bool {
        self.is_empty()
    }
}
