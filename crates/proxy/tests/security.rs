//! A test for each class of holes that proxies had, named after the CVE it is
//! about (the classes of Envoy's and Istio's bulletins that concern what this
//! proxy does). What they ask for is behaviour: refused, kept apart, bounded.

mod frames;
mod support;

#[path = "security/addresses.rs"]
mod addresses;
#[path = "security/h1_smuggling.rs"]
mod h1_smuggling;
#[path = "security/h2_floods.rs"]
mod h2_floods;
#[path = "security/h2_headers.rs"]
mod h2_headers;
#[path = "security/headers.rs"]
mod headers;
#[path = "security/log_injection.rs"]
mod log_injection;
#[path = "security/paths.rs"]
mod paths;
#[path = "security/resets.rs"]
mod resets;
#[path = "security/response_desync.rs"]
mod response_desync;
#[path = "security/scene.rs"]
mod scene;
