//! The node agent: virtual nodes whose pods are processes in namespaces of their own.

pub mod process;
pub mod runtime;
pub mod env;
pub mod host;
pub mod image;
pub mod plan;
pub mod rootfs;
pub mod identity;
pub mod log;
pub mod event;
pub mod probe;
mod probe_tls;
pub mod status;
