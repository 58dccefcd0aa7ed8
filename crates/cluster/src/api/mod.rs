//! The Kubernetes-compatible API: kinds, requests, admission, discovery and the TLS server.

pub mod core;
pub mod error;
pub mod handle;
pub mod resource;
pub mod selector;
pub mod server;

pub use error::ApiError;
pub use handle::{
    Api, BoundPod, DeleteOptions, Precondition, Propagation, ServiceAccountToken, UserInfo,
    WatchEvent, WatchKind, WatchStream,
};
pub use resource::Resource;
pub use selector::Selectors;
