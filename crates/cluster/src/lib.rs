//! The embedded single-machine cluster: a Kubernetes-compatible API server, its store, the
//! controllers, the node agent and the pod network. It knows nothing of Istio: the mesh is
//! installed into it like into any cluster.
//!
//! Inside the program everything talks to the API through [`api::handle::Api`], a cheap clone
//! that goes through the same admission, defaulting, validation and storage as HTTP requests.
//! [`api::server::ApiServer::start`] opens the store, binds the TLS listener and returns both.
#![recursion_limit = "256"]

pub mod api;
pub mod controllers;
#[doc(hidden)]
pub mod fuzz;
pub mod local;
pub mod network;
pub mod node;
pub mod store;
pub mod stream;
