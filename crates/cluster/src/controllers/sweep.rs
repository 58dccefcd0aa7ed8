//! Slow duties of a clock: pods of nodes that are no more, and nodes whose agent stopped renewing
//! its lease. (Old events are the store's own duty.)

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::object::{condition, format_time, list, name, namespace, text, time, uid};
use crate::api::resource::{LEASES, NODES, PODS};
use crate::api::{Api, ApiError, DeleteOptions, Selectors};

/// How often the sweep comes round.
const ROUND: Duration = Duration::from_secs(10);
/// Rounds in a row in which a lease must be overdue: after a suspended machine wakes, every lease
/// is overdue by the clock until its agent comes round.
const ROUNDS: u32 = 3;
/// How long a node may leave its lease unrenewed, in seconds.
const LEASE_GRACE: i64 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Sweeps until `shutdown`.
pub async fn run(api: Api, shutdown: CancellationToken) {
    let api = api.as_user("system:kube-controller-manager");
    let mut overdue_rounds = HashMap::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(ROUND) => {}
        }
        let now = Timestamp::now();
        for (what, result) in [
            ("pods", lost_pods(&api).await),
            ("nodes", silent_nodes(&api, now, &mut overdue_rounds).await),
        ] {
            if let Err(error) = result {
                tracing::warn!("sweeping {what}: {error}");
            }
        }
    }
}

/// Deletes pods bound to nodes that do not exist: no agent will ever do it.
async fn lost_pods(api: &Api) -> Result<(), ApiError> {
    let (pods, _) = api.list(&PODS, None, &Selectors::all()).await?;
    let (nodes, _) = api.list(&NODES, None, &Selectors::all()).await?;
    let known: HashSet<&str> = nodes.iter().map(|node| name(node)).collect();
    for pod in &pods {
        let node = text(pod, "/spec/nodeName");
        if !node.is_empty() && !known.contains(node) {
            let options = DeleteOptions::now().with_uid(uid(pod));
            ignore_missing(
                api.delete(&PODS, Some(namespace(pod)), name(pod), options)
                    .await,
            )?;
        }
    }
    Ok(())
}

fn ignore_missing<T>(result: Result<T, ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// Marks nodes `Ready: Unknown` whose lease is overdue. The agent marks them ready again itself.
async fn silent_nodes(
    api: &Api,
    now: Timestamp,
    overdue_rounds: &mut HashMap<String, u32>,
) -> Result<(), ApiError> {
    let (nodes, _) = api.list(&NODES, None, &Selectors::all()).await?;
    for node in &nodes {
        let unknown =
            condition(node, "Ready").is_some_and(|ready| text(ready, "/status") == "Unknown");
        if unknown {
            continue;
        }
        let lease = match api.get(&LEASES, Some(LEASE_NAMESPACE), name(node)).await {
            Ok(lease) => lease,
            // A node without a lease is not kept by an agent that could fall silent.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        if !overdue(&lease, now) {
            overdue_rounds.remove(name(node));
            continue;
        }
        let rounds = overdue_rounds.entry(name(node).to_owned()).or_insert(0);
        *rounds += 1;
        if *rounds >= ROUNDS {
            let patch = json!({"status": {"conditions": unknown_conditions(node, now)}});
            let done = api
                .merge_patch(&NODES, None, name(node), &patch, Some("status"))
                .await;
            ignore_missing(done)?;
        }
    }
    Ok(())
}

fn overdue(lease: &Value, now: Timestamp) -> bool {
    time(lease, "/spec/renewTime")
        .is_some_and(|renewed| now.as_second() - renewed.as_second() > LEASE_GRACE)
}

fn unknown_conditions(node: &Value, now: Timestamp) -> Vec<Value> {
    let mut conditions = list(node, "/status/conditions").to_vec();
    for condition in &mut conditions {
        condition["status"] = json!("Unknown");
        condition["reason"] = json!("NodeStatusUnknown");
        condition["message"] = json!("Kubelet stopped posting node status.");
        condition["lastTransitionTime"] = json!(format_time(now));
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_overdue_after_its_grace() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let lease = |at: &str| json!({"spec": {"renewTime": at}});
        assert!(overdue(&lease("2026-01-01T00:00:10.000000Z"), now));
        assert!(!overdue(&lease("2026-01-01T00:00:30.000000Z"), now));
        let node = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(unknown_conditions(&node, now)[0]["status"], "Unknown");
    }
}
