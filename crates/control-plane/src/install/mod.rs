//! The objects that make up a mesh installation, in the order they are applied. Pure: a
//! profile and values in, objects out; the same objects whether they go to a real cluster, to
//! the embedded one, or to a terminal.

mod access;
mod config_maps;
mod gateways;
mod istiod;
pub mod values;
pub mod webhooks;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use values::{PROFILES, Values};

/// Why there are no manifests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// No such profile.
    #[error("unknown profile {0:?}; there are: {profiles}", profiles = PROFILES.join(", "))]
    Profile(String),
    /// A `--set` that is not `key=value`, or whose key leads nowhere.
    #[error("--set {setting}: {problem}")]
    Set {
        /// What was given.
        setting: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The gateway's pod could not be made.
    #[error("gateway {name}: {problem}")]
    Gateway {
        /// Gateway name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// The manifests of a profile with `key=value` settings, images tagged with this version.
/// `profile=NAME` among the settings wins over `profile`.
///
/// # Errors
/// An unknown profile, or a setting that cannot be applied.
pub fn manifests_for(profile: &str, sets: &[String]) -> Result<Vec<Value>, InstallError> {
    manifests(&Values::build(profile, sets, env!("CARGO_PKG_VERSION"))?)
}

/// The manifests for these values, in the order they are applied.
///
/// # Errors
/// A gateway's settings cannot be read.
pub fn manifests(values: &Values) -> Result<Vec<Value>, InstallError> {
    let mut objects = Vec::new();
    if values.enabled("components.base") {
        objects.push(namespace(values));
        objects.extend(lateen_resources::crds());
        objects.extend(access::base(values));
    }
    if values.enabled("components.pilot") {
        objects.extend(access::pilot(values));
        objects.extend(config_maps::all(values));
        objects.extend(istiod::all(values));
        objects.extend(webhooks::all(values));
    }
    objects.extend(gateways::all(values)?);
    Ok(objects)
}

/// The manifests as one YAML stream.
#[must_use]
pub fn print(objects: &[Value]) -> String {
    crate::inject::yaml::print_all(objects)
}

fn namespace(values: &Values) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": values.namespace(), "labels": {"kubernetes.io/metadata.name": values.namespace()}},
    })
}

/// The labels of everything that belongs to a part of the installation.
fn labels(values: &Values, app: &str) -> Value {
    json!({
        "app": app,
        "release": "istio",
        "app.kubernetes.io/part-of": "istio",
        "app.kubernetes.io/managed-by": "lateen",
        "istio.io/rev": values.revision(),
    })
}
