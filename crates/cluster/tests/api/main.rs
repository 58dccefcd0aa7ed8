//! The API server against real clients: kubectl, raw HTTPS, webhooks, and a power cut.

mod auth;
mod crds;
mod durability;
mod kubectl;
mod operations;
mod refusals;
mod support;
mod webhooks;
