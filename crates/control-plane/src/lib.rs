//! The control plane at work: ADS server, CA, webhooks, debug pages.

pub mod ads;
pub mod metrics;
