//! From what a person types (`name`, `name.namespace`, `deploy/name`) to one running pod.

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::api::ListParams;

use crate::client::Cluster;
use crate::exit::{FAILED, Failure, USAGE};

/// A pod by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    /// Pod name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// The pod that `given` names: itself, or a running one behind the workload or service.
pub async fn resolve(cluster: &Cluster, given: &str) -> anyhow::Result<PodName> {
    let (kind, rest) = given.split_once('/').unwrap_or(("pod", given));
    let (name, namespace) = split(rest, &cluster.namespace);
    let labels = match kind {
        "pod" | "pods" | "po" => return Ok(PodName { name, namespace }),
        "deploy" | "deployment" | "deployments" | "deployments.apps" => {
            let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &namespace);
            selector(api.get(&name).await?.spec.selector)?
        }
        "rs" | "replicaset" | "replicasets" => {
            let api: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), &namespace);
            selector(api.get(&name).await?.spec.selector)?
        }
        "sts" | "statefulset" | "statefulsets" => {
            let api: Api<StatefulSet> = Api::namespaced(cluster.client.clone(), &namespace);
            selector(api.get(&name).await?.spec.selector)?
        }
        "ds" | "daemonset" | "daemonsets" => {
            let api: Api<DaemonSet> = Api::namespaced(cluster.client.clone(), &namespace);
            selector(api.get(&name).await?.spec.selector)?
        }
        "svc" | "service" | "services" => {
            let api: Api<Service> = Api::namespaced(cluster.client.clone(), &namespace);
            let spec = api.get(&name).await?.spec.unwrap_or_default();
            let labels = spec.selector.unwrap_or_default();
            labels
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
                .join(",")
        }
        other => {
            let message = format!("\"{other}\" is not a kind that leads to a pod");
            return Err(Failure::new(USAGE, message)
                .hint("use pod, deployment, replicaset, statefulset, daemonset or service")
                .into());
        }
    };
    running(cluster, &namespace, &labels, given).await
}

/// `name.namespace`, the namespace optional. A pod's own name may hold no dot where a namespace
/// is meant: the last dot decides.
fn split(given: &str, default: &str) -> (String, String) {
    match given.rsplit_once('.') {
        Some((name, namespace)) => (name.to_owned(), namespace.to_owned()),
        None => (given.to_owned(), default.to_owned()),
    }
}

fn selector(selector: LabelSelector) -> anyhow::Result<String> {
    let labels = selector.match_labels.context("it has no label selector")?;
    Ok(labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(","))
}

async fn running(
    cluster: &Cluster,
    namespace: &str,
    labels: &str,
    given: &str,
) -> anyhow::Result<PodName> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let pods = api.list(&ListParams::default().labels(labels)).await?;
    let is_running = |pod: &&Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
    };
    let pod = pods
        .items
        .iter()
        .find(is_running)
        .and_then(|pod| pod.metadata.name.clone());
    match pod {
        Some(name) => Ok(PodName {
            name,
            namespace: namespace.to_owned(),
        }),
        None => Err(
            Failure::new(FAILED, format!("no running pod behind {given}"))
                .hint(format!("see `kubectl get pods -n {namespace} -l {labels}`"))
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_namespace_stands_behind_the_last_dot() {
        assert_eq!(
            split("p-1.shop", "default"),
            ("p-1".to_owned(), "shop".to_owned())
        );
        assert_eq!(
            split("p-1", "default"),
            ("p-1".to_owned(), "default".to_owned())
        );
    }
}
