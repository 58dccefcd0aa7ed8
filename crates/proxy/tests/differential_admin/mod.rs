//! The suite of the admin pages: one mesh (`bootstrap.yaml`) in the real Envoy and in this proxy,
//! the same requests through both (`traffic.yaml`), then their pages key by key. What Envoy shows
//! and this proxy does not, on purpose, stands in `left_out.yaml` with its reason.

pub mod judge;
pub mod page;
pub mod scene;
