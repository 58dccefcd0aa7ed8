//! Tables: what `kubectl get` prints, made by the server.

mod age;
mod cells;
mod custom;
mod pods;
mod workloads;

use std::sync::Arc;

use serde_json::{Value, json};

use super::http::Next;
use super::kinds::{Kind, Target};
use super::meta;

pub(crate) use age::since;

/// One column.
pub(crate) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
}

/// A column of text at priority 0; `wide` ones have priority 1.
fn column(name: &str) -> Column {
    let (name, priority) = match name.strip_prefix('+') {
        Some(n) => (n, 1),
        None => (name, 0),
    };
    Column {
        kind: "string".to_owned(),
        format: if name == "Name" {
            "name".to_owned()
        } else {
            String::new()
        },
        description: String::new(),
        name: name.to_owned(),
        priority,
    }
}

fn columns(names: &[&str]) -> Vec<Column> {
    names.iter().map(|n| column(n)).collect()
}

/// Makes the cells of a row.
type Cells = Box<dyn Fn(&Value) -> Vec<Value>>;
/// Column names and a plain function for the cells.
type Row = (&'static [&'static str], fn(&Value) -> Vec<Value>);

/// How the rows of a kind are made.
struct Printer {
    columns: Vec<Column>,
    cells: Cells,
}

fn printer(target: &Target) -> Printer {
    let kind: &Kind = &target.kind;
    if kind.custom {
        return custom::printer(target);
    }
    let (names, cells): Row = match (kind.store.group.as_ref(), kind.store.plural.as_ref()) {
        ("", "pods") => (pods::COLUMNS, pods::cells),
        ("", "services") => (cells::SERVICE, cells::service),
        ("", "nodes") => (cells::NODE, cells::node),
        ("", "namespaces") => (cells::NAMESPACE, cells::namespace),
        ("", "serviceaccounts") => (cells::SERVICE_ACCOUNT, cells::service_account),
        ("", "configmaps") => (cells::CONFIG_MAP, cells::config_map),
        ("", "secrets") => (cells::SECRET, cells::secret),
        ("", "events") => (cells::EVENT, cells::event),
        ("", "endpoints") => (cells::ENDPOINTS, cells::endpoints),
        ("", "persistentvolumes") => (cells::VOLUME, cells::volume),
        ("", "persistentvolumeclaims") => (cells::CLAIM, cells::claim),
        ("", "replicationcontrollers") => (workloads::REPLICA_SET, workloads::replica_set),
        ("apps", "deployments") => (workloads::DEPLOYMENT, workloads::deployment),
        ("apps", "replicasets") => (workloads::REPLICA_SET, workloads::replica_set),
        ("apps", "statefulsets") => (workloads::STATEFUL_SET, workloads::stateful_set),
        ("apps", "daemonsets") => (workloads::DAEMON_SET, workloads::daemon_set),
        ("apps", "controllerrevisions") => (workloads::REVISION, workloads::revision),
        ("batch", "jobs") => (workloads::JOB, workloads::job),
        ("batch", "cronjobs") => (workloads::CRON_JOB, workloads::cron_job),
        ("autoscaling", _) => (workloads::AUTOSCALER, workloads::autoscaler),
        ("policy", "poddisruptionbudgets") => (workloads::BUDGET, workloads::budget),
        ("discovery.k8s.io", "endpointslices") => (cells::SLICE, cells::slice),
        ("networking.k8s.io", "ingresses") => (cells::INGRESS, cells::ingress),
        ("networking.k8s.io", "ingressclasses") => (cells::INGRESS_CLASS, cells::ingress_class),
        ("networking.k8s.io", "networkpolicies") => (cells::POLICY, cells::policy),
        ("coordination.k8s.io", "leases") => (cells::LEASE, cells::lease),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            (cells::BINDING, cells::binding)
        }
        ("admissionregistration.k8s.io", _) => (cells::WEBHOOKS, cells::webhooks),
        ("storage.k8s.io", "storageclasses") => (cells::STORAGE_CLASS, cells::storage_class),
        ("scheduling.k8s.io", "priorityclasses") => (cells::PRIORITY_CLASS, cells::priority_class),
        _ => (cells::PLAIN, cells::plain),
    };
    Printer {
        columns: columns(names),
        cells: Box::new(cells),
    }
}

/// The table of a list. `include`: `Metadata` (default), `Object` or `None`.
pub(crate) fn of_list(
    target: &Target,
    objects: &[Arc<Value>],
    include: &str,
    beta: bool,
    rv: u64,
    next: Option<&Next>,
) -> Value {
    let printer = printer(target);
    // The columns read the stored form; aliases are served in another one.
    let stored = |o: &Value| {
        let mut copy = o.clone();
        target.kind.to_storage(&mut copy);
        copy
    };
    let alias = target.kind.res != target.kind.store;
    let rows: Vec<Value> = objects
        .iter()
        .map(|o| {
            let object = match include {
                "None" => Value::Null,
                "Object" => (**o).clone(),
                _ => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": o["metadata"]}),
            };
            let cells = if alias {
                (printer.cells)(&stored(o))
            } else {
                (printer.cells)(o)
            };
            let mut row = json!({"cells": cells, "object": object});
            let pod_done = target.kind.is(&super::resource::PODS)
                && matches!(o["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            if pod_done {
                row["conditions"] = json!([{"type": "Completed", "status": "True",
                    "reason": o["status"]["phase"], "message": "The pod has completed."}]);
            }
            row
        })
        .collect();
    let definitions: Vec<Value> = printer
        .columns
        .iter()
        .map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format,
                "description": c.description, "priority": c.priority})
        })
        .collect();
    let mut metadata = json!({"resourceVersion": rv.to_string()});
    if let Some(n) = next {
        metadata["continue"] = n.token.as_str().into();
        if let Some(r) = n.remaining {
            metadata["remainingItemCount"] = r.into();
        }
    }
    let version = if beta { "v1beta1" } else { "v1" };
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows})
}

/// A text field, or `<none>`.
fn or_none(v: &Value) -> Value {
    match v.as_str() {
        Some(s) if !s.is_empty() => s.into(),
        _ => "<none>".into(),
    }
}

fn name(o: &Value) -> Value {
    meta::name(o).into()
}

/// Age since creation.
fn age(o: &Value) -> Value {
    since(meta::text(o, "creationTimestamp")).into()
}

/// Items joined by comma, or `<none>`.
fn joined(items: impl IntoIterator<Item = String>) -> Value {
    let list: Vec<String> = items.into_iter().collect();
    if list.is_empty() {
        "<none>".into()
    } else {
        list.join(",").into()
    }
}

fn list(v: &Value) -> &[Value] {
    v.as_array().map_or(&[], Vec::as_slice)
}

/// At most three items, then how many more.
fn first_three(items: &[String]) -> Value {
    match items.len() {
        0 => "<none>".into(),
        n if n > 3 => format!("{} + {} more...", items[..3].join(","), n - 3).into(),
        _ => items.join(",").into(),
    }
}
