//! Where objects come from: Kubernetes watch, files, memory.
//!
//! Every source speaks one vocabulary ([`Event`]) into a [`Sink`]; what objects
//! mean is nobody's business here. This is also the only crate that names a
//! Kubernetes client: [`Kube`] is the façade for everyone else.

mod event;
pub mod files;
mod kube_client;
pub mod kubernetes;
mod memory;
mod raw;

pub use event::{Event, Sink};
pub use files::run_files;
pub use kube_client::{
    CONFIG_MAP, Kube, KubeError, MUTATING_WEBHOOK, NAMESPACE, NODE, Resource, SECRET,
    TokenIdentity, VALIDATING_WEBHOOK, connect, connect_config, service_account,
};
pub use kubernetes::{KubernetesOptions, load_once, run_kubernetes};
pub use memory::Memory;

/// The Kubernetes client, for those who connect on their own.
pub use kube::{Client, Config};
