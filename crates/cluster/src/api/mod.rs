//! The Kubernetes-compatible API: kinds, requests, admission, discovery and the TLS server.

mod admit;
mod auth;
mod bootstrap;
mod carry;
mod client_cert;
pub mod core;
pub(crate) mod crd;
pub(crate) mod defaults;
mod delete;
mod depth;
pub mod error;
mod events;
pub mod handle;
pub(crate) mod http;
mod intake;
pub mod kinds;
pub mod meta;
pub(crate) mod patch;
pub mod resource;
mod scale;
pub(crate) mod schema;
pub mod selector;
pub mod server;
mod services;
pub(crate) mod table;
pub(crate) mod validate;
mod write;

pub use error::ApiError;
pub use handle::{
    Api, BoundPod, DeleteOptions, Precondition, Propagation, ServiceAccountToken, UserInfo,
    WatchEvent, WatchKind, WatchStream,
};
pub use resource::Resource;
pub use selector::Selectors;
pub use server::{ApiServer, ApiServerOptions, ClusterPki, ServerError, ServerHandle, StaticToken};
