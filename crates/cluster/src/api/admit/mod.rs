//! Admission: the built-in rules and the webhooks, between decoding and storage.

mod builtin;
mod bundle;
mod call;
mod rules;
mod webhook;

use std::sync::Arc;

use serde_json::Value;

use super::core::RequestInfo;
use super::kinds::Kind;

pub(crate) use builtin::{check_delete, defaults_of_pod};
pub(crate) use webhook::{Webhooks, run_mutating, run_validating};

/// What a request does, as webhooks name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// A removed object.
    Delete,
}

impl Operation {
    /// The name in an AdmissionReview.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// One request on its way through admission.
pub(crate) struct Attributes<'a> {
    pub(crate) kind: &'a Arc<Kind>,
    /// Served version of the request.
    pub(crate) version: &'a str,
    pub(crate) ns: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) sub: Option<&'a str>,
    pub(crate) operation: Operation,
    pub(crate) info: &'a RequestInfo,
    /// The options object of the request (`CreateOptions`, ...), or null.
    pub(crate) options: Value,
}
