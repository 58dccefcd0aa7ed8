//! Discovery: the groups, versions and resources served, in the old and the aggregated form.

use aws_lc_rs::digest;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::body::{self, Answer};
use super::params::{Form, form};
use super::path::Named;
use super::service::Call;
use crate::api::error::ApiError;
use crate::api::kinds::{Kind, Registry};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// Order of the well-known groups; the others follow in the order of the registry.
const STREAMS: [&str; 3] = ["attach", "exec", "portforward"];

/// A subresource in discovery: name, kind, its group and version (empty: the parent's), verbs.
struct Sub {
    name: &'static str,
    kind: String,
    group: &'static str,
    version: &'static str,
    verbs: &'static [&'static str],
}

fn subresources(kind: &Kind) -> Vec<Sub> {
    let mut out = Vec::new();
    let sub = |name, kind: &str, group, version, verbs| Sub {
        name,
        kind: kind.to_owned(),
        group,
        version,
        verbs,
    };
    const CREATE: &[&str] = &["create"];
    const CHANGE: &[&str] = &["get", "patch", "update"];
    if kind.status {
        out.push(sub("status", &kind.kind, "", "", CHANGE));
    }
    if kind.scale.is_some() {
        out.push(sub("scale", "Scale", "autoscaling", "v1", CHANGE));
    }
    if !kind.custom && kind.res.group.is_empty() {
        match kind.res.plural.as_ref() {
            "pods" => {
                out.push(sub("binding", "Binding", "", "", CREATE));
                out.push(sub("ephemeralcontainers", "Pod", "", "", CHANGE));
                out.push(sub("eviction", "Eviction", "policy", "v1", CREATE));
                out.push(sub("log", "Pod", "", "", &["get"]));
                for (name, k) in STREAMS.iter().zip([
                    "PodAttachOptions",
                    "PodExecOptions",
                    "PodPortForwardOptions",
                ]) {
                    out.push(sub(name, k, "", "", &["create", "get"]));
                }
            }
            "namespaces" => out.push(sub("finalize", "Namespace", "", "", &["update"])),
            "serviceaccounts" => out.push(sub(
                "token",
                "TokenRequest",
                "authentication.k8s.io",
                "v1",
                CREATE,
            )),
            _ => {}
        }
    }
    out
}

/// Plural, kind, "is namespaced".
type ReviewRow = (&'static str, &'static str, bool);

/// Review kinds: nothing is stored, so they are no rows of the kind table.
const REVIEWS: &[(&str, &[ReviewRow])] = &[
    (
        "authentication.k8s.io",
        &[
            ("selfsubjectreviews", "SelfSubjectReview", false),
            ("tokenreviews", "TokenReview", false),
        ],
    ),
    (
        "authorization.k8s.io",
        &[
            (
                "localsubjectaccessreviews",
                "LocalSubjectAccessReview",
                true,
            ),
            ("selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
            ("selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
            ("subjectaccessreviews", "SubjectAccessReview", false),
        ],
    ),
];

pub(super) fn handle(call: &Call<'_>, named: &Named, etag: &str) -> Result<Answer, ApiError> {
    let core = call.core();
    let registry = core.registry();
    let wanted = form(&call.accept, |f| {
        matches!(f, Form::Plain | Form::Discovery { .. })
    });
    let value = match (named, wanted) {
        (Named::Legacy, Form::Discovery { beta }) => {
            return Ok(cached(&aggregated(&registry, true, beta), Some(beta), etag));
        }
        (Named::Groups, Form::Discovery { beta }) => {
            return Ok(cached(
                &aggregated(&registry, false, beta),
                Some(beta),
                etag,
            ));
        }
        (Named::Legacy, _) => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0",
                "serverAddress": core.settings.advertise.to_string()}]}),
        (Named::Groups, _) => {
            let groups: Vec<Value> = all_groups(&registry)
                .iter()
                .map(|g| group(&registry, g))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        (Named::Group(g), _) => {
            if !all_groups(&registry).contains(g) {
                return Err(ApiError::unknown_path());
            }
            let mut v = group(&registry, g);
            v["kind"] = "APIGroup".into();
            v["apiVersion"] = "v1".into();
            v
        }
        (Named::Version(g, v), _) => {
            let found = all_groups(&registry).contains(g) || g.is_empty();
            if !found || !versions(&registry, g).contains(v) {
                return Err(ApiError::unknown_path());
            }
            resource_list(&registry, g, v)
        }
        _ => return Err(ApiError::unknown_path()),
    };
    Ok(cached(&value, None, etag))
}

fn all_groups(registry: &Registry) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    // The usual order: workloads first, so that `kubectl get deploy` means apps.
    for g in registry.groups() {
        if g != "extensions" {
            out.push(g.to_owned());
        }
    }
    out.extend(REVIEWS.iter().map(|(g, _)| (*g).to_owned()));
    if registry.groups().contains(&"extensions") {
        out.push("extensions".to_owned());
    }
    out
}

fn versions(registry: &Registry, group: &str) -> Vec<String> {
    if REVIEWS.iter().any(|(g, _)| *g == group) {
        return vec!["v1".to_owned()];
    }
    registry.versions(group)
}

fn group(registry: &Registry, name: &str) -> Value {
    let list: Vec<Value> = versions(registry, name)
        .iter()
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    json!({"name": name, "preferredVersion": list.first(), "versions": list})
}

fn kinds_of<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Kind> {
    registry
        .kinds()
        .iter()
        .map(AsRef::as_ref)
        .filter(move |k: &&Kind| k.res.group == group && k.version(version).is_some())
}

fn storage_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    let text = format!("{}/{}", kind.storage_api_version, kind.kind);
    let d = digest::digest(&digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&d.as_ref()[..8])
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for kind in kinds_of(registry, group, version) {
        let mut r = json!({"name": kind.res.plural, "singularName": kind.singular,
            "namespaced": kind.namespaced, "kind": kind.kind, "verbs": VERBS});
        if !kind.short_names.is_empty() {
            r["shortNames"] = kind.short_names.clone().into();
        }
        if !kind.categories.is_empty() {
            r["categories"] = kind.categories.clone().into();
        }
        r["storageVersionHash"] = storage_hash(kind).into();
        list.push(r);
        for s in subresources(kind) {
            let mut r = json!({"name": format!("{}/{}", kind.res.plural, s.name), "singularName": "",
                "namespaced": kind.namespaced, "kind": s.kind, "verbs": s.verbs});
            if !s.group.is_empty() {
                r["group"] = s.group.into();
            }
            if !s.version.is_empty() {
                r["version"] = s.version.into();
            }
            list.push(r);
        }
    }
    for (g, reviews) in REVIEWS {
        if *g == group {
            list.extend(reviews.iter().map(|(plural, kind, namespaced)| {
                json!({"name": plural, "singularName": kind.to_lowercase(),
                    "namespaced": namespaced, "kind": kind, "verbs": ["create"]})
            }));
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": crate::api::meta::api_version(group, version), "resources": list})
}

fn aggregated_resource(kind: &Kind, group: &str, version: &str) -> Value {
    let gvk = |g: &str, v: &str, k: &str| json!({"group": g, "version": v, "kind": k});
    let subs: Vec<Value> = subresources(kind)
        .iter()
        .map(|s| {
            let g = if s.group.is_empty() { group } else { s.group };
            let v = if s.version.is_empty() {
                version
            } else {
                s.version
            };
            json!({"subresource": s.name, "responseKind": gvk(g, v, &s.kind), "verbs": s.verbs})
        })
        .collect();
    let mut r = json!({"resource": kind.res.plural, "responseKind": gvk(group, version, &kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular, "verbs": VERBS});
    if !kind.short_names.is_empty() {
        r["shortNames"] = kind.short_names.clone().into();
    }
    if !kind.categories.is_empty() {
        r["categories"] = kind.categories.clone().into();
    }
    if !subs.is_empty() {
        r["subresources"] = subs.into();
    }
    r
}

fn aggregated_group(registry: &Registry, group: &str) -> Value {
    let mut list = Vec::new();
    for version in versions(registry, group) {
        let mut resources: Vec<Value> = kinds_of(registry, group, &version)
            .map(|k| aggregated_resource(k, group, &version))
            .collect();
        for (g, reviews) in REVIEWS {
            if *g == group {
                resources.extend(reviews.iter().map(|(plural, kind, namespaced)| {
                    json!({"resource": plural, "responseKind": {"group": group, "version": version, "kind": kind},
                        "scope": if *namespaced { "Namespaced" } else { "Cluster" },
                        "singularResource": kind.to_lowercase(), "verbs": ["create"]})
                }));
            }
        }
        list.push(json!({"version": version, "freshness": "Current", "resources": resources}));
    }
    let mut metadata = json!({"creationTimestamp": null});
    if !group.is_empty() {
        metadata["name"] = group.into();
    }
    json!({"metadata": metadata, "versions": list})
}

fn aggregated(registry: &Registry, legacy: bool, beta: bool) -> Value {
    let items: Vec<Value> = if legacy {
        vec![aggregated_group(registry, "")]
    } else {
        all_groups(registry)
            .iter()
            .map(|g| aggregated_group(registry, g))
            .collect()
    };
    let version = if beta { "v2beta1" } else { "v2" };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items})
}

/// Text of a digest for `ETag`.
pub(super) fn etag_of(bytes: &[u8]) -> String {
    let d = digest::digest(&digest::SHA256, bytes);
    d.as_ref()
        .iter()
        .take(16)
        .map(|b| format!("{b:02X}"))
        .collect()
}

/// An answer that clients may keep and revalidate.
fn cached(value: &Value, beta: Option<bool>, etag: &str) -> Answer {
    let bytes = value.to_string();
    let tag = format!("\"{}\"", etag_of(bytes.as_bytes()));
    let content_type = match beta {
        None => "application/json".to_owned(),
        Some(beta) => {
            let v = if beta { "v2beta1" } else { "v2" };
            format!("application/json;g=apidiscovery.k8s.io;v={v};as=APIGroupDiscoveryList")
        }
    };
    // Clients put the headers of a 304 over those they kept: the type must be the same.
    let same = etag.split(',').any(|t| t.trim() == tag);
    let mut answer = if same {
        body::answer(StatusCode::NOT_MODIFIED, &content_type, "")
    } else {
        body::answer(StatusCode::OK, &content_type, bytes)
    };
    let headers = answer.headers_mut();
    if let Ok(v) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, v);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    answer
}
