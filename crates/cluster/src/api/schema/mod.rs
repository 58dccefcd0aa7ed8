//! Schemas: the OpenAPI definitions of built-in kinds and the check of objects against them.

pub mod builtin;
mod check;

pub use check::{check_builtin, check_metadata};
