//! Service accounts and what they may do.

use serde_json::{Value, json};

use super::{Values, labels};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Accounts that every installation has.
pub(super) fn base(values: &Values) -> Vec<Value> {
    vec![account(
        values,
        "istio-reader-service-account",
        "istio-reader",
    )]
}

/// The control plane's account, and roles for it and for readers.
pub(super) fn pilot(values: &Values) -> Vec<Value> {
    let (namespace, suffix) = (values.namespace(), values.suffix());
    let istiod = format!("istiod{suffix}");
    let cluster = format!("istiod-clusterrole{suffix}-{namespace}");
    let controller = format!("istiod-gateway-controller{suffix}-{namespace}");
    let reader = format!("istio-reader-clusterrole{suffix}-{namespace}");
    vec![
        account(values, &istiod, "istiod"),
        role(values, "ClusterRole", &cluster, cluster_rules()),
        role(values, "ClusterRole", &controller, controller_rules()),
        role(values, "ClusterRole", &reader, reader_rules()),
        binding(values, "ClusterRole", &cluster, &istiod),
        binding(values, "ClusterRole", &controller, &istiod),
        binding(
            values,
            "ClusterRole",
            &reader,
            "istio-reader-service-account",
        ),
        role(values, "Role", &istiod, namespaced_rules()),
        binding(values, "Role", &istiod, &istiod),
    ]
}

/// A gateway's account and its leave to read secrets of its namespace.
pub(super) fn gateway(values: &Values, name: &str) -> Vec<Value> {
    let account_name = format!("{name}-service-account");
    let sds = format!("{name}-sds");
    let rules = json!([rule(&[""], &["secrets"], &["get", "watch", "list"])]);
    vec![
        account(values, &account_name, name),
        role(values, "Role", &sds, rules),
        binding(values, "Role", &sds, &account_name),
    ]
}

fn account(values: &Values, name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": values.namespace(), "labels": labels(values, app)},
    })
}

fn role(values: &Values, kind: &str, name: &str, rules: Value) -> Value {
    let mut role = json!({
        "apiVersion": format!("{RBAC}/v1"),
        "kind": kind,
        "metadata": {"name": name, "labels": labels(values, "istiod")},
        "rules": rules,
    });
    if kind == "Role" {
        role["metadata"]["namespace"] = values.namespace().into();
    }
    role
}

fn binding(values: &Values, kind: &str, role: &str, account: &str) -> Value {
    let mut binding = json!({
        "apiVersion": format!("{RBAC}/v1"),
        "kind": format!("{kind}Binding"),
        "metadata": {"name": role, "labels": labels(values, "istiod")},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": values.namespace()}],
    });
    if kind == "Role" {
        binding["metadata"]["namespace"] = values.namespace().into();
    }
    binding
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

const READ: &[&str] = &["get", "watch", "list"];
const WRITE: &[&str] = &[
    "get", "watch", "list", "update", "patch", "create", "delete",
];
const ISTIO: &[&str] = &[
    "config.istio.io",
    "security.istio.io",
    "networking.istio.io",
    "authentication.istio.io",
    "rbac.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
];

fn cluster_rules() -> Value {
    let webhooks = &[
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ];
    let core = &["pods", "nodes", "services", "namespaces", "endpoints"];
    let status = &["update", "patch"];
    json!([
        rule(
            &["admissionregistration.k8s.io"],
            webhooks,
            &["get", "list", "watch", "update", "patch"]
        ),
        rule(ISTIO, &["*"], READ),
        rule(ISTIO, &["*/status"], status),
        rule(
            &["networking.istio.io"],
            &["workloadentries", "workloadentries/status"],
            WRITE
        ),
        rule(
            &["apiextensions.k8s.io"],
            &["customresourcedefinitions"],
            READ
        ),
        rule(&[""], core, READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        rule(
            &["networking.k8s.io"],
            &["ingresses", "ingressclasses"],
            READ
        ),
        rule(&["networking.k8s.io"], &["ingresses/status"], &["*"]),
        rule(
            &[""],
            &["configmaps"],
            &["create", "get", "list", "watch", "update", "patch"]
        ),
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(
            &["authorization.k8s.io"],
            &["subjectaccessreviews"],
            &["create"]
        ),
        rule(&["gateway.networking.k8s.io"], &["*"], READ),
        rule(&["gateway.networking.k8s.io"], &["*/status"], status),
        rule(&[""], &["secrets"], READ),
        rule(&[""], &["serviceaccounts"], READ),
        rule(
            &["certificates.k8s.io"],
            &["certificatesigningrequests"],
            READ
        ),
    ])
}

fn controller_rules() -> Value {
    json!([
        rule(&["apps"], &["deployments"], WRITE),
        rule(&[""], &["services"], WRITE),
        rule(&[""], &["serviceaccounts"], WRITE),
    ])
}

fn reader_rules() -> Value {
    let core = &[
        "endpoints",
        "pods",
        "services",
        "nodes",
        "replicationcontrollers",
        "namespaces",
        "secrets",
    ];
    json!([
        rule(ISTIO, &["*"], READ),
        rule(&[""], core, READ),
        rule(
            &["apiextensions.k8s.io"],
            &["customresourcedefinitions"],
            READ
        ),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        rule(&["apps"], &["replicasets"], READ),
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(
            &["authorization.k8s.io"],
            &["subjectaccessreviews"],
            &["create"]
        ),
    ])
}

fn namespaced_rules() -> Value {
    json!([
        rule(&["networking.istio.io"], &["gateways"], &["create"]),
        rule(
            &[""],
            &["secrets"],
            &["create", "get", "watch", "list", "update", "delete"]
        ),
        rule(&[""], &["configmaps"], &["delete"]),
        rule(
            &["coordination.k8s.io"],
            &["leases"],
            &["get", "update", "patch", "create"]
        ),
    ])
}
