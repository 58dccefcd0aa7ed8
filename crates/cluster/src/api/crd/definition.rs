//! Reading a CustomResourceDefinition: names, versions, schemas, columns, subresources.

use std::cmp::Reverse;
use std::sync::{Arc, OnceLock};

use kube_cel::CompiledSchema;
use serde_json::{Value, json};

use crate::api::error::Cause;
use crate::api::kinds::{Conversion, Kind, KindVersion, NameRule, Scale};
use crate::api::meta;
use crate::api::resource::Resource;

/// Kept on a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Schema and columns of one version of a custom resource.
pub struct CrdVersion {
    /// `openAPIV3Schema`; null when the version has none.
    pub schema: Value,
    /// `additionalPrinterColumns`.
    pub columns: Vec<Value>,
    rules: OnceLock<Option<CompiledSchema>>,
}

impl CrdVersion {
    /// A version from its schema and columns.
    #[must_use]
    pub fn new(schema: Value, columns: Vec<Value>) -> Self {
        Self {
            schema,
            columns,
            rules: OnceLock::new(),
        }
    }

    /// The CEL rules, compiled at first use; `None` when the schema has none.
    pub(super) fn rules(&self) -> Option<&CompiledSchema> {
        self.rules
            .get_or_init(|| has_rules(&self.schema).then(|| kube_cel::compile_schema(&self.schema)))
            .as_ref()
    }
}

impl std::fmt::Debug for CrdVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrdVersion").finish_non_exhaustive()
    }
}

/// Whether the definition still waits for its objects to be removed.
#[must_use]
pub fn has_cleanup(crd: &Value) -> bool {
    meta::finalizers(crd).any(|f| f == CLEANUP)
}

/// Order of versions: GA before beta before alpha, higher numbers first (reversed: greater is
/// better).
#[must_use]
pub fn version_order(name: &str) -> (u8, u32, u32, Reverse<String>) {
    let fallback = (0, 0, 0, Reverse(name.to_owned()));
    let Some(rest) = name.strip_prefix('v') else {
        return fallback;
    };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Ok(major) = rest[..digits].parse::<u32>() else {
        return fallback;
    };
    let tail = &rest[digits..];
    let none = Reverse(String::new());
    if tail.is_empty() {
        return (3, major, 0, none);
    }
    for (word, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some(minor) = tail.strip_prefix(word).and_then(|m| m.parse().ok()) {
            return (rank, major, minor, none);
        }
    }
    fallback
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

/// What tells one state of a definition's spec from another: uid and generation.
#[must_use]
pub fn origin(crd: &Value) -> String {
    format!(
        "{}/{}",
        meta::text(crd, "uid"),
        crd["metadata"]["generation"]
    )
}

/// The served kind of a definition; `None` while no version is served.
#[must_use]
pub fn kind_of(crd: &Value) -> Option<Kind> {
    let spec = &crd["spec"];
    let names = &spec["names"];
    let group = text(&spec["group"]);
    let mut versions = Vec::new();
    let mut storage = String::new();
    let (mut status, mut scale, mut fields) = (false, None, Vec::new());
    for v in spec["versions"].as_array()? {
        if v["storage"] == true {
            storage = text(&v["name"]);
        }
        let sub = &v["subresources"];
        status |= sub["status"].is_object();
        if sub["scale"].is_object() {
            scale = Some(Scale {
                spec: text(&sub["scale"]["specReplicasPath"]),
                status: text(&sub["scale"]["statusReplicasPath"]),
                selector: text(&sub["scale"]["labelSelectorPath"]),
            });
        }
        for f in v["selectableFields"].as_array().into_iter().flatten() {
            let path = text(&f["jsonPath"]).trim_start_matches('.').to_owned();
            if !fields.contains(&path) {
                fields.push(path);
            }
        }
        if v["served"] == true {
            versions.push(served_version(&group, &text(&names["kind"]), v));
        }
    }
    versions.sort_by_key(|v| Reverse(version_order(&v.name)));
    if versions.is_empty() {
        return None;
    }
    let res = Resource::named(group.clone(), text(&names["plural"]));
    Some(Kind {
        store: res.clone(),
        res,
        storage_api_version: meta::api_version(&group, &storage),
        kind: text(&names["kind"]),
        list_kind: text(&names["listKind"]),
        singular: text(&names["singular"]),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        versions,
        status,
        scale,
        generation: true,
        needs_version: true,
        names: NameRule::Subdomain,
        fields,
        definition: None,
        conversion: Conversion::Version,
        custom: true,
        origin: origin(crd),
    })
}

fn served_version(group: &str, kind: &str, v: &Value) -> KindVersion {
    let name = text(&v["name"]);
    let deprecation = (v["deprecated"] == true).then(|| {
        v["deprecationWarning"].as_str().map_or_else(
            || format!("{group}/{name} {kind} is deprecated"),
            str::to_owned,
        )
    });
    let columns = v["additionalPrinterColumns"].as_array();
    KindVersion {
        deprecation,
        custom: Some(Arc::new(CrdVersion::new(
            v["schema"]["openAPIV3Schema"].clone(),
            columns.cloned().unwrap_or_default(),
        ))),
        name,
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(m) => m.contains_key("x-kubernetes-validations") || m.values().any(has_rules),
        Value::Array(a) => a.iter().any(has_rules),
        _ => false,
    }
}

/// Fills the names left out, the conversion strategy and the cleanup finalizer, and lists what
/// is wrong with the definition.
pub fn prepare(crd: &mut Value, creating: bool) -> Vec<Cause> {
    let kind = text(&crd["spec"]["names"]["kind"]);
    if crd["spec"]["names"].is_object() {
        let names = &mut crd["spec"]["names"];
        if names["singular"].as_str().unwrap_or_default().is_empty() {
            names["singular"] = kind.to_lowercase().into();
        }
        if names["listKind"].as_str().unwrap_or_default().is_empty() {
            names["listKind"] = format!("{kind}List").into();
        }
        if crd["spec"]["conversion"].is_null() {
            crd["spec"]["conversion"] = json!({"strategy": "None"});
        }
    }
    if creating {
        let meta = meta::metadata_mut(crd);
        let list = meta
            .entry("finalizers")
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut()
            && !list.iter().any(|f| f == CLEANUP)
        {
            list.push(CLEANUP.into());
        }
    }
    problems(crd)
}

fn problems(crd: &Value) -> Vec<Cause> {
    let spec = &crd["spec"];
    let mut out = Vec::new();
    let mut need = |v: &Value, field: &str| {
        if v.as_str().unwrap_or_default().is_empty() {
            out.push(Cause::required(field, ""));
        }
    };
    need(&spec["group"], "spec.group");
    need(&spec["names"]["plural"], "spec.names.plural");
    need(&spec["names"]["kind"], "spec.names.kind");
    if !matches!(spec["scope"].as_str(), Some("Namespaced" | "Cluster")) {
        out.push(Cause::not_supported(
            "spec.scope",
            &spec["scope"],
            &["Cluster", "Namespaced"],
        ));
    }
    let wanted = format!(
        "{}.{}",
        text(&spec["names"]["plural"]),
        text(&spec["group"])
    );
    if meta::name(crd) != wanted {
        out.push(Cause::invalid(
            "metadata.name",
            &meta::name(crd).into(),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        out.push(Cause::invalid(
            "spec.versions",
            &spec["versions"],
            "must have exactly one version marked as storage version",
        ));
    }
    for (i, v) in versions.iter().enumerate() {
        let schema = &v["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            out.push(Cause::required(
                format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "schemas are required",
            ));
        } else if schema["type"] != "object" {
            out.push(Cause::invalid(
                format!("spec.versions[{i}].schema.openAPIV3Schema.type"),
                &schema["type"],
                "must be object at the root",
            ));
        }
    }
    out
}

/// The status that a served definition shows, with the times of conditions kept.
pub fn set_status(crd: &mut Value, established: bool) {
    let storage: Vec<Value> = crd["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["storage"] == true)
        .map(|v| v["name"].clone())
        .collect();
    let mut stored = crd["status"]["storedVersions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for s in storage {
        if !stored.contains(&s) {
            stored.push(s);
        }
    }
    let mut conditions = vec![condition(
        crd,
        "NamesAccepted",
        "NoConflicts",
        "no conflicts found",
    )];
    if established {
        conditions.push(condition(
            crd,
            "Established",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        ));
    }
    if meta::deleting(crd) {
        conditions.push(condition(
            crd,
            "Terminating",
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress",
        ));
    }
    crd["status"] = json!({
        "conditions": conditions,
        "acceptedNames": crd["spec"]["names"],
        "storedVersions": stored,
    });
}

fn condition(crd: &Value, kind: &str, reason: &str, message: &str) -> Value {
    let since = crd["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == kind && c["status"] == "True")
        .map_or_else(meta::now_text, |c| text(&c["lastTransitionTime"]));
    json!({"type": kind, "status": "True", "lastTransitionTime": since,
        "reason": reason, "message": message})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_by_maturity() {
        let mut v = vec!["v1alpha3", "v1", "v2beta1", "v1beta1", "foo", "v2"];
        v.sort_by_key(|v| Reverse(version_order(v)));
        assert_eq!(v, ["v2", "v1", "v2beta1", "v1beta1", "v1alpha3", "foo"]);
    }
}
