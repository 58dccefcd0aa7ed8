//! Snapshot, endpoints and proxy key to xDS resources, one file per type.
//!
//! Everything here is a function of its arguments: no clock, no environment, no cache. A
//! [`Context`] is one look at the configuration from where one proxy stands; [`generate`]
//! makes any resource type from it. What may differ between proxies is in the key alone, so
//! key and configuration version together are a safe cache key.

pub mod access_log;
pub mod cluster;
pub mod context;
pub mod endpoint;
mod filters;
mod fingerprint;
pub mod listener;
mod locality;
pub mod name_table;
pub mod names;
mod policy;
pub mod resource;
pub mod route;
pub mod secret;
pub mod sharing;
mod wire;

pub use context::{Context, Features, Serves};
pub use filters::ASKED as EXTENSIONS;
pub use resource::{Resource, ResourceSet, ResourceType};
pub use sharing::{Ingredients, class};

/// The resources of a type. Clusters, listeners and the name table are whole; of the other
/// types the named ones are made, whether somebody else knows the name or not.
pub fn generate<'n>(
    cx: &Context<'_>,
    t: ResourceType,
    names: impl IntoIterator<Item = &'n str>,
) -> ResourceSet {
    match t {
        ResourceType::Cluster => ResourceSet::new(cluster::clusters(cx)),
        ResourceType::Listener => ResourceSet::new(listener::listeners(cx)),
        ResourceType::NameTable => ResourceSet::new([name_table::name_table(cx)]),
        ResourceType::Endpoint => {
            ResourceSet::new(names.into_iter().map(|n| endpoint::by_name(cx, n)))
        }
        ResourceType::Route => ResourceSet::new(names.into_iter().map(|n| route::by_name(cx, n))),
        // Secrets come from a store that is no part of the snapshot: see `secret`.
        ResourceType::Secret | ResourceType::Extension => ResourceSet::default(),
    }
}
