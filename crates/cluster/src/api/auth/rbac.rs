//! Authorisation by roles and bindings, and the roles every cluster begins with.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{AUTHENTICATED, MASTERS};
use crate::api::handle::UserInfo;
use crate::api::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Resource};
use crate::api::selector::{from_label_selector, matches_labels};
use crate::store::Store;

/// Paths everyone may read.
const PUBLIC: [&str; 6] = [
    "/healthz",
    "/livez",
    "/readyz",
    "/version",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
];
/// Prefixes that everyone with credentials may read: discovery.
const DISCOVERY: [&str; 3] = ["/api", "/apis", "/openapi"];

/// What someone wants to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Action<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) sub: &'a str,
    pub(crate) name: &'a str,
    pub(crate) ns: &'a str,
    /// A path that is no resource; then the fields above but the verb are empty.
    pub(crate) path: Option<&'a str>,
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn rule_allows(rule: &Value, a: &Action<'_>) -> bool {
    let fits = |list: &Value, wanted: &str| texts(list).any(|v| v == "*" || v == wanted);
    if !fits(&rule["verbs"], a.verb) {
        return false;
    }
    if let Some(path) = a.path {
        return texts(&rule["nonResourceURLs"]).any(|p| {
            p == "*" || p == path || p.strip_suffix('*').is_some_and(|pre| path.starts_with(pre))
        });
    }
    let wanted = if a.sub.is_empty() {
        a.resource.to_owned()
    } else {
        format!("{}/{}", a.resource, a.sub)
    };
    let resource = texts(&rule["resources"]).any(|r| {
        r == "*" || r == wanted || (!a.sub.is_empty() && r.strip_prefix("*/") == Some(a.sub))
    });
    let names: Vec<&str> = texts(&rule["resourceNames"]).collect();
    fits(&rule["apiGroups"], a.group) && resource && (names.is_empty() || names.contains(&a.name))
}

fn subject_is(subject: &Value, binding_ns: &str, user: &UserInfo) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => user.name == name,
        Some("Group") => user.groups.iter().any(|g| g == name),
        Some("ServiceAccount") => {
            let ns = subject["namespace"].as_str().unwrap_or(binding_ns);
            user.name == format!("system:serviceaccount:{ns}:{name}")
        }
        _ => false,
    }
}

/// The rules of the role a binding in `ns` names; those of an aggregated ClusterRole are the
/// rules of all roles its selectors match.
fn role_rules(store: &Store, binding: &Value, ns: &str) -> Vec<Value> {
    let name = binding["roleRef"]["name"].as_str().unwrap_or_default();
    let role = if binding["roleRef"]["kind"] == "Role" {
        store.get(&ROLES, ns, name)
    } else {
        store.get(&CLUSTER_ROLES, "", name)
    };
    let Some(role) = role else {
        return Vec::new();
    };
    let rules_in = |r: &Value| r["rules"].as_array().cloned().unwrap_or_default();
    let mut rules = rules_in(&role);
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
    for selector in selectors.into_iter().flatten() {
        let terms = from_label_selector(selector);
        let (all, _) = store.list(&CLUSTER_ROLES, None);
        for other in all
            .iter()
            .filter(|o| matches_labels(&terms, &o["metadata"]["labels"]))
        {
            rules.extend(rules_in(other));
        }
    }
    rules
}

/// The rules that apply to a user in a namespace (empty: cluster-wide only).
pub(crate) fn rules_of(store: &Store, user: &UserInfo, ns: &str) -> Vec<Value> {
    if user.groups.iter().any(|g| g == MASTERS) {
        return vec![
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
            json!({"verbs": ["*"], "nonResourceURLs": ["*"]}),
        ];
    }
    let mut out = Vec::new();
    let mut collect = |bindings: &[Arc<Value>], ns: &str| {
        for b in bindings {
            let subjects = b["subjects"].as_array().into_iter().flatten();
            if !subjects.clone().any(|s| subject_is(s, ns, user)) {
                continue;
            }
            out.extend(role_rules(store, b, ns));
        }
    };
    collect(&store.list(&CLUSTER_ROLE_BINDINGS, None).0, "");
    if !ns.is_empty() {
        collect(&store.list(&ROLE_BINDINGS, Some(ns)).0, ns);
    }
    out
}

/// Whether a user may do something.
pub(crate) fn allowed(store: &Store, user: &UserInfo, action: &Action<'_>) -> bool {
    if user.groups.iter().any(|g| g == MASTERS) {
        return true;
    }
    let read = matches!(action.verb, "get" | "head");
    if let Some(path) = action.path
        && read
    {
        if PUBLIC
            .iter()
            .any(|p| path == *p || path.starts_with(&format!("{p}/")))
        {
            return true;
        }
        let with_credentials = user.groups.iter().any(|g| g == AUTHENTICATED);
        if with_credentials
            && DISCOVERY
                .iter()
                .any(|p| path == *p || path.starts_with(&format!("{p}/")))
        {
            return true;
        }
    }
    rules_of(store, user, action.ns)
        .iter()
        .any(|r| rule_allows(r, action))
}

/// Roles and bindings that every cluster has.
pub(crate) fn bootstrap_objects() -> Vec<(&'static Resource, Value)> {
    let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    let role = |name: &str, rules: Value| {
        let mut role =
            json!({"metadata": {"name": name, "labels": labels.clone()}, "rules": rules});
        if matches!(name, "admin" | "edit" | "view") {
            let key = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
            role["aggregationRule"] =
                json!({"clusterRoleSelectors": [{"matchLabels": {key: "true"}}]});
        }
        (&CLUSTER_ROLES, role)
    };
    let bind = |name: &str, group: &str| {
        (
            &CLUSTER_ROLE_BINDINGS,
            json!({"metadata": {"name": name, "labels": labels},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]}),
        )
    };
    let reads = json!(["get", "list", "watch"]);
    let all = json!([
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch"
    ]);
    let core = json!([
        "configmaps",
        "endpoints",
        "events",
        "persistentvolumeclaims",
        "pods",
        "pods/log",
        "pods/status",
        "replicationcontrollers",
        "serviceaccounts",
        "services",
        "services/status"
    ]);
    let rest = json!([
        "apps",
        "autoscaling",
        "batch",
        "discovery.k8s.io",
        "networking.k8s.io",
        "policy",
        "extensions"
    ]);
    let write_core = json!([
        "configmaps",
        "endpoints",
        "events",
        "persistentvolumeclaims",
        "pods",
        "pods/attach",
        "pods/exec",
        "pods/portforward",
        "pods/proxy",
        "pods/eviction",
        "replicationcontrollers",
        "secrets",
        "serviceaccounts",
        "services",
        "serviceaccounts/token"
    ]);
    let rbac = json!(["rbac.authorization.k8s.io"]);
    let rule = |verbs: &Value, groups: Value, resources: &Value| json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
    let star = json!(["*"]);
    let view = vec![
        rule(&reads, json!([""]), &core),
        rule(&reads, json!([""]), &json!(["namespaces"])),
        rule(&reads, rest.clone(), &star),
    ];
    let mut edit = view.clone();
    edit.push(rule(&all, json!([""]), &write_core));
    edit.push(rule(&all, rest, &star));
    let mut admin = edit.clone();
    admin.push(rule(&all, rbac, &json!(["roles", "rolebindings"])));
    vec![
        role(
            "cluster-admin",
            json!([rule(&star, star.clone(), &star), {"verbs": ["*"], "nonResourceURLs": ["*"]}]),
        ),
        role("admin", admin.into()),
        role("edit", edit.into()),
        role("view", view.into()),
        role(
            "system:discovery",
            json!([{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*",
            "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]}]),
        ),
        role(
            "system:basic-user",
            json!([
            {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
             "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
            {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]}]),
        ),
        bind("cluster-admin", MASTERS),
        bind("system:discovery", AUTHENTICATED),
        bind("system:basic-user", AUTHENTICATED),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action<'a>(verb: &'a str, resource: &'a str, sub: &'a str, name: &'a str) -> Action<'a> {
        Action {
            verb,
            resource,
            sub,
            name,
            ..Action::default()
        }
    }

    #[test]
    fn rules_match_resources_subresources_and_names() {
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
        assert!(rule_allows(&rule, &action("get", "pods", "", "x")));
        assert!(rule_allows(&rule, &action("get", "pods", "log", "x")));
        assert!(!rule_allows(&rule, &action("get", "pods", "exec", "x")));
        assert!(!rule_allows(&rule, &action("list", "pods", "", "")));
        let named =
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]});
        assert!(rule_allows(&named, &action("get", "pods", "", "a")));
        assert!(!rule_allows(&named, &action("get", "pods", "", "b")));
        let path = json!({"verbs": ["get"], "nonResourceURLs": ["/metrics*"]});
        let a = Action {
            verb: "get",
            path: Some("/metrics/x"),
            ..Action::default()
        };
        assert!(rule_allows(&path, &a));
    }

    #[test]
    fn service_accounts_are_subjects_by_namespace() {
        let user = UserInfo {
            name: "system:serviceaccount:ns:sa".to_owned(),
            ..UserInfo::default()
        };
        assert!(subject_is(
            &json!({"kind": "ServiceAccount", "name": "sa"}),
            "ns",
            &user
        ));
        assert!(!subject_is(
            &json!({"kind": "ServiceAccount", "name": "sa", "namespace": "x"}),
            "ns",
            &user
        ));
    }
}
