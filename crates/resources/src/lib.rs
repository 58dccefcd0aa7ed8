//! What users write: Istio and Kubernetes objects, typed and checked.
//!
//! YAML or JSON comes in as [`Object`]s with their positions; whatever is wrong
//! becomes a [`Diagnostic`] with the field path, the line and what would be
//! right. No client, no async, no knowledge of routing or xDS.

pub mod check;
pub mod crd;
pub mod diagnostic;
pub mod istio;
pub mod kind;
pub mod kubernetes;
pub mod meta;
pub mod names;
pub mod object;
pub mod proto;
pub mod read;
pub mod schema;
pub mod set;
pub mod yaml;

pub use crd::crds;
pub use diagnostic::{Code, Diagnostic, Severity};
pub use kind::Kind;
pub use meta::ObjectMeta;
pub use object::{Body, Object, ObjectRef, SourceRef};
pub use read::{ReadResult, read_value, read_yaml};
pub use set::{ObjectKey, ObjectSet};
