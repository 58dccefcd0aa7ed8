//! Whether a pod is injected: namespaces, labels, host network, selectors, policy.

use serde_json::Value;

use super::InjectConfig;
use super::annotation::{Annotations, INJECT, NAMESPACE_INJECTION, REVISION, STATUS, text_map};

/// Namespaces whose pods are never injected.
pub const NEVER: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// Yes or no, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether the pod is injected.
    pub inject: bool,
    /// What decided.
    pub reason: Reason,
}

/// What decided about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The pod uses the network of its node.
    HostNetwork,
    /// A namespace of the system.
    SystemNamespace,
    /// The pod has its sidecar already.
    AlreadyInjected,
    /// The pod's own label or annotation.
    PodSays,
    /// `alwaysInjectSelector` or `neverInjectSelector`.
    Selector,
    /// The policy for pods that say nothing.
    Policy,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reason::HostNetwork => "the pod uses the host's network",
            Reason::SystemNamespace => "pods of this namespace are never injected",
            Reason::AlreadyInjected => "the pod has a sidecar already",
            Reason::PodSays => "label or annotation sidecar.istio.io/inject of the pod",
            Reason::Selector => "a selector of the injection configuration",
            Reason::Policy => "the injection policy",
        })
    }
}

/// Decides about a pod that a webhook's selector has let in, or that a file holds.
#[must_use]
pub fn decide(config: &InjectConfig, pod: &Value, namespace: &str) -> Decision {
    let no = |reason| Decision {
        inject: false,
        reason,
    };
    if pod["spec"]["hostNetwork"] == true {
        return no(Reason::HostNetwork);
    }
    if NEVER.contains(&namespace) {
        return no(Reason::SystemNamespace);
    }
    if already_injected(pod) {
        return no(Reason::AlreadyInjected);
    }
    let labels = text_map(&pod["metadata"]["labels"]);
    let said = labels.get(INJECT).cloned();
    let said = said.or_else(|| Annotations::of(pod).get(INJECT).map(str::to_owned));
    if let Some(word) = said.filter(|word| !word.is_empty()) {
        // Any other word means no, so that a slip does not inject.
        let yes = matches!(
            word.to_ascii_lowercase().as_str(),
            "y" | "yes" | "true" | "on"
        );
        return Decision {
            inject: yes,
            reason: Reason::PodSays,
        };
    }
    let matches = |list: &[Value]| list.iter().any(|selector| selects(selector, &labels));
    if matches(&config.never_inject) {
        return no(Reason::Selector);
    }
    if matches(&config.always_inject) {
        return Decision {
            inject: true,
            reason: Reason::Selector,
        };
    }
    Decision {
        inject: config.enabled,
        reason: Reason::Policy,
    }
}

/// Whether the pod has been injected: the status annotation, and the container.
fn already_injected(pod: &Value) -> bool {
    let named = |list: &str| {
        let list = pod["spec"][list].as_array().into_iter().flatten();
        list.into_iter().any(|c| c["name"] == super::PROXY)
    };
    Annotations::of(pod).get(STATUS).is_some() && (named("containers") || named("initContainers"))
}

/// The labels that the webhooks of a revision select by: whether a new pod with these labels in
/// a namespace with those is sent to it at all. The four rules are the ones that
/// [`crate::install::webhooks`] writes.
#[must_use]
pub fn webhook_selects(revision: &str, namespace: &Value, pod: &Value) -> bool {
    let (namespace, pod) = (text_map(namespace), text_map(pod));
    let of_namespace = namespace.get(NAMESPACE_INJECTION).map(String::as_str);
    let says_no = pod.get(INJECT).map(String::as_str) == Some("false");
    let says_yes = pod.get(INJECT).map(String::as_str) == Some("true");
    let default = revision == "default";
    match (of_namespace, namespace.get(REVISION)) {
        (Some("enabled"), _) => default && !says_no,
        (Some(_), _) => false,
        (None, Some(name)) => name == revision && !says_no,
        (None, None) => match pod.get(REVISION) {
            Some(name) => name == revision && !says_no,
            None => default && says_yes,
        },
    }
}

/// Whether a Kubernetes label selector (`matchLabels`, `matchExpressions`) matches.
fn selects(selector: &Value, labels: &std::collections::BTreeMap<String, String>) -> bool {
    let equal = text_map(&selector["matchLabels"]);
    let expressions = selector["matchExpressions"].as_array();
    if equal.is_empty() && expressions.is_none_or(Vec::is_empty) {
        // An empty selector would match every pod; Istio passes it over.
        return false;
    }
    let expression = |item: &Value| {
        let found = labels.get(item["key"].as_str().unwrap_or_default());
        let listed = |value: &String| {
            let mut values = item["values"].as_array().into_iter().flatten();
            values.any(|v| v.as_str() == Some(value))
        };
        match item["operator"].as_str().unwrap_or_default() {
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            "In" => found.is_some_and(listed),
            "NotIn" => !found.is_some_and(listed),
            _ => false,
        }
    };
    equal
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && expressions.into_iter().flatten().all(expression)
}
