//! CustomResourceDefinitions: from the stored object to a served kind, and its schema rules.

pub(crate) mod cleanup;
mod definition;
mod pattern;
mod rules;
mod shape;
mod structural;

pub use definition::{
    CrdVersion, has_cleanup, kind_of, origin, prepare, set_status, version_order,
};
pub use shape::schema_problems;
pub use structural::{apply_defaults, prune, validate};
