//! Sidecar injection: a pod template in, the injected pod out. Pure: no cluster, no clock.
//!
//! [`policy`] says whether a pod is injected, [`inject_pod`] does it, [`review`] answers the
//! webhook with a JSON patch, [`files`] is `kube-inject` over YAML files.

pub mod annotation;
pub mod config;
mod containers;
mod environment;
pub mod files;
mod metadata;
mod overlay;
pub mod policy;
mod probes;
pub mod review;
mod template;
mod volumes;
pub mod workload;
pub mod yaml;

#[cfg(test)]
mod tests;

use serde_json::Value;

pub use config::InjectConfig;
pub use policy::{Decision, Reason};
pub use workload::Workload;

/// Name of the init container that sets the redirection rules.
pub const INIT: &str = "istio-init";
/// Name of the init container that only checks them (CNI plug-in).
pub const VALIDATION: &str = "istio-validation";
/// Name of the proxy's container.
pub const PROXY: &str = "istio-proxy";
/// The user and group that the proxy runs as.
pub const PROXY_UID: i64 = 1337;

/// Why a pod could not be injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// An annotation that cannot be read.
    #[error("annotation {name}: {value:?} is not {what}")]
    Annotation {
        /// Annotation name.
        name: String,
        /// What it holds.
        value: String,
        /// What it should hold.
        what: String,
    },
    /// `inject.istio.io/templates` names one that is not there.
    #[error("no injection template {0:?}; there are: {1}")]
    Template(String, String),
    /// The object has no pod in it.
    #[error("{0}")]
    Shape(String),
    /// The configuration cannot be read.
    #[error("injection configuration: {0}")]
    Config(String),
    /// The application claims the proxy's user, and the configuration refuses that.
    #[error(
        "container {0} runs as user 1337, which is the proxy's: its traffic would not be captured (IST0144)"
    )]
    ProxyUser(String),
    /// A YAML file that is none.
    #[error("{0}")]
    Yaml(String),
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The pod with its sidecar, and what the user should know.
    Injected {
        /// The whole pod (or pod template).
        pod: Box<Value>,
        /// Warnings such as an application that runs as the proxy's user.
        warnings: Vec<String>,
    },
    /// Left as it is.
    Skipped(Reason),
}

/// Decides about a pod (or pod template: an object with `metadata` and `spec`) and injects it.
///
/// # Errors
/// The pod has no spec, or an annotation of ours cannot be read.
pub fn inject_pod(
    config: &InjectConfig,
    pod: &Value,
    workload: &Workload,
) -> Result<Outcome, InjectError> {
    let decision = policy::decide(config, pod, &workload.namespace);
    if !decision.inject {
        return Ok(Outcome::Skipped(decision.reason));
    }
    let warnings = check_users(config, pod)?;
    let pod = template::render(config, pod, workload)?;
    Ok(Outcome::Injected {
        pod: Box::new(pod),
        warnings,
    })
}

/// Injects the workloads of a file's text; objects that name no namespace are in `default`.
/// [`files::inject`] tells more.
///
/// # Errors
/// See [`files::inject`].
pub fn inject_text(text: &str, config: &InjectConfig) -> Result<String, InjectError> {
    files::inject(config, text, "default").map(|injected| injected.text)
}

/// Applications that run as the proxy's user bypass it (analysis message IST0144).
fn check_users(config: &InjectConfig, pod: &Value) -> Result<Vec<String>, InjectError> {
    let user = |of: &Value| {
        of.pointer("/securityContext/runAsUser")
            .and_then(Value::as_i64)
    };
    let whole = user(&pod["spec"]);
    let mut warnings = Vec::new();
    for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
        let name = container["name"].as_str().unwrap_or_default();
        if name == PROXY || user(container).or(whole) != Some(PROXY_UID) {
            continue;
        }
        let error = InjectError::ProxyUser(name.to_owned());
        if config.reject_proxy_user() {
            return Err(error);
        }
        warnings.push(error.to_string());
    }
    Ok(warnings)
}
