//! The control plane at work: ADS server, CA, webhooks, debug pages.

pub mod ads;
pub mod auth;
pub mod ca;
pub mod debug;
pub mod inject;
pub mod install;
pub mod metrics;
pub mod planner;
pub mod serve;
pub mod store;
pub mod tls;
