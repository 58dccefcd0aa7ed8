//! The control plane at work: ADS server, CA, webhooks, debug pages.
//!
//! Sources deliver objects to the [`planner`], which compiles them and publishes
//! configurations to the [`store`]; [`ads`] pushes to proxies what differs. What config means
//! is decided in `lateen-compile` and `lateen-xds`, never here. [`run()`] is the whole of it.

pub mod ads;
pub mod auth;
pub mod ca;
pub mod cluster;
pub mod debug;
#[doc(hidden)]
pub mod fuzz;
pub mod inject;
pub mod install;
pub mod metrics;
pub mod options;
pub mod planner;
pub mod run;
pub mod serve;
pub mod store;
pub mod tls;
pub mod webhook;

pub use options::{ControlPlaneOptions, Objects};
pub use run::{Bound, Running, run, start};
