//! Schemas: the OpenAPI definitions of built-in kinds and the check of objects against them.

mod base64;
pub mod builtin;
mod check;
mod quantity;

pub use check::{TypeError, check_builtin, check_metadata};
