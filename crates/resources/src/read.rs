//! From text or JSON to typed objects. Whatever cannot be read becomes a
//! diagnostic with its path and line; the rest is still delivered.

use crate::object::{Body, FileOrigin, Object, ObjectRef};
use crate::schema::{self, Problem};
use crate::{Code, Diagnostic, Kind, ObjectMeta, yaml};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What reading gave.
#[derive(Debug, Default)]
pub struct ReadResult {
    /// Objects of known kinds.
    pub objects: Vec<Object>,
    /// Objects of kinds that the mesh has nothing to do with.
    pub foreign: Vec<ObjectRef>,
    /// What could not be read, or not in full.
    pub diagnostics: Vec<Diagnostic>,
}

impl ReadResult {
    /// True when something is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|d| d.severity == crate::Severity::Error)
    }
}

/// Annotation that repeats the whole object: dropped to save memory.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Reads all objects of a text of YAML (or JSON) documents. `file` names it in
/// diagnostics; objects without a namespace get `namespace`.
pub fn read_yaml(text: &str, file: &str, namespace: &str) -> ReadResult {
    let mut out = ReadResult::default();
    let file: Arc<str> = file.into();
    let (documents, errors) = yaml::documents(text);
    for e in errors {
        let at = crate::SourceRef {
            file: file.clone(),
            line: e.position.line,
        };
        let d = Diagnostic::new(Code::SCHEMA, None, format!("Schema validation error: {e}"));
        out.diagnostics.push(d.source(Some(at)));
    }
    for doc in documents {
        let origin = FileOrigin {
            file: file.clone(),
            positions: Arc::new(doc.positions),
        };
        read_into(doc.value, Some(origin), namespace, &mut out);
    }
    out
}

/// Reads one object (or a `List`) from JSON.
pub fn read_value(value: Value, namespace: &str) -> ReadResult {
    let mut out = ReadResult::default();
    read_into(value, None, namespace, &mut out);
    out
}

fn text<'v>(map: &'v Map<String, Value>, key: &str) -> &'v str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn read_into(value: Value, origin: Option<FileOrigin>, namespace: &str, out: &mut ReadResult) {
    let Value::Object(map) = value else {
        let d = Diagnostic::new(
            Code::SCHEMA,
            None,
            "Schema validation error: a document must be an object with apiVersion and kind",
        );
        out.diagnostics.push(d.source(origin.map(|o| o.at(""))));
        return;
    };
    let kind_name = text(&map, "kind").to_owned();
    if kind_name == "List" || (kind_name.ends_with("List") && map.contains_key("items")) {
        if let Some(Value::Array(items)) = map.get("items").cloned() {
            for mut item in items {
                if let (Value::Object(item), Some(kind)) = (
                    &mut item,
                    kind_name.strip_suffix("List").filter(|k| !k.is_empty()),
                ) {
                    // Items of typed lists leave their type to the list.
                    item.entry("kind").or_insert_with(|| kind.into());
                    item.entry("apiVersion")
                        .or_insert_with(|| text(&map, "apiVersion").into());
                }
                read_into(item, origin.clone(), namespace, out);
            }
        }
        return;
    }
    Reader { origin, out }.object(map, &kind_name, namespace);
}

struct Reader<'o> {
    origin: Option<FileOrigin>,
    out: &'o mut ReadResult,
}

impl Reader<'_> {
    fn report(&mut self, object: &ObjectRef, path: &str, message: &str, remedy: String) {
        let message = match (path.is_empty(), remedy.is_empty()) {
            (true, true) => format!("Schema validation error: {message}"),
            (true, false) => format!("Schema validation error: {message}; {remedy}"),
            (false, true) => format!("Schema validation error: {path}: {message}"),
            (false, false) => format!("Schema validation error: {path}: {message}; {remedy}"),
        };
        let d = Diagnostic::new(Code::SCHEMA, Some(object.clone()), message)
            .at(path)
            .remedy(remedy)
            .source(self.origin.as_ref().map(|o| o.at(path)));
        self.out.diagnostics.push(d);
    }

    fn object(&mut self, mut map: Map<String, Value>, kind_name: &str, namespace: &str) {
        let api_version = text(&map, "apiVersion").to_owned();
        let meta_value = map.shift_remove("metadata").unwrap_or_default();
        let meta_text = |k: &str| {
            meta_value
                .get(k)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let mut reference = ObjectRef {
            kind: kind_name.to_owned(),
            namespace: meta_text("namespace"),
            name: meta_text("name"),
        };
        let Some(kind) = self.kind(&api_version, &mut reference, namespace) else {
            return;
        };

        let mut problems = Vec::new();
        let meta = read_meta(meta_value, &mut problems);
        let body = read_body(kind, map, &mut problems);
        let fatal = problems.iter().any(|p| !p.unknown_field);
        for p in problems {
            self.report(&reference, &p.path, &p.message, p.remedy);
        }
        let (Some(mut meta), Some(body)) = (meta, body) else {
            return;
        };
        if fatal {
            return;
        }
        meta.namespace.clone_from(&reference.namespace);
        if meta.name.is_empty() && meta.generate_name.is_empty() {
            self.report(
                &reference,
                "metadata.name",
                "a name is required",
                String::new(),
            );
            return;
        }
        let origin = self.origin.clone();
        self.out.objects.push(Object {
            kind,
            api_version,
            meta,
            body,
            origin,
        });
    }

    /// The kind; `None` after saying why there is none. Completes the namespace.
    fn kind(
        &mut self,
        api_version: &str,
        reference: &mut ObjectRef,
        namespace: &str,
    ) -> Option<Kind> {
        let kind_name = reference.kind.clone();
        if kind_name.is_empty() {
            self.report(reference, "kind", "kind is missing", "add kind".into());
            return None;
        }
        if api_version.is_empty() {
            let known = crate::kind::KINDS.iter().find(|k| k.name == kind_name);
            let remedy = known.map_or_else(
                || "add apiVersion".to_owned(),
                |k| format!("add \"apiVersion: {}\"", k.kind.api_version()),
            );
            self.report(reference, "apiVersion", "apiVersion is missing", remedy);
            return None;
        }
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let Some(kind) = Kind::of(api_version, &kind_name) else {
            let of_group: Vec<_> = crate::kind::KINDS
                .iter()
                .filter(|k| k.group == group)
                .collect();
            if group.ends_with("istio.io") && !group.starts_with("install.") {
                let names: Vec<_> = of_group.iter().map(|k| k.name).collect();
                self.report(
                    reference,
                    "kind",
                    &format!("no kind {kind_name:?} in {group}"),
                    format!("known kinds: {}", names.join(", ")),
                );
            } else {
                self.out.foreign.push(reference.clone());
            }
            return None;
        };
        let info = kind.info();
        if info.namespaced {
            if reference.namespace.is_empty() {
                reference.namespace = namespace.to_owned();
            }
        } else {
            reference.namespace.clear();
        }
        if kind.is_istio() && !info.versions.contains(&version) {
            self.report(
                reference,
                "apiVersion",
                &format!("no version {version:?} of {kind_name}"),
                format!("use {group}/{}", info.versions[0]),
            );
            return None;
        }
        Some(kind)
    }
}

fn read_meta(mut value: Value, problems: &mut Vec<Problem>) -> Option<ObjectMeta> {
    if value.is_null() {
        value = Value::Object(Map::new());
    }
    if let Some(Value::Object(a)) = value.get_mut("annotations") {
        a.shift_remove(LAST_APPLIED);
    }
    schema::walk(
        schema::meta_shape(),
        &mut value,
        "metadata",
        false,
        problems,
    );
    typed(value, "metadata", problems)
}

fn typed<T: DeserializeOwned>(value: Value, path: &str, problems: &mut Vec<Problem>) -> Option<T> {
    if problems.iter().any(|p| !p.unknown_field) {
        return None;
    }
    match serde_json::from_value(value) {
        Ok(v) => Some(v),
        Err(e) => {
            problems.push(Problem {
                path: path.to_owned(),
                message: e.to_string(),
                remedy: String::new(),
                unknown_field: false,
            });
            None
        }
    }
}

fn read_body(kind: Kind, map: Map<String, Value>, problems: &mut Vec<Problem>) -> Option<Body> {
    if kind.is_istio() {
        return read_spec(kind, map, problems);
    }
    let mut value = Value::Object(map);
    schema::walk(schema::shape_of(kind), &mut value, "", false, problems);
    fn get<T: DeserializeOwned>(v: Value, p: &mut Vec<Problem>) -> Option<T> {
        typed(v, "", p)
    }
    Some(match kind {
        Kind::Namespace => Body::Namespace,
        Kind::Node => Body::Node(get(value, problems)?),
        Kind::Pod => Body::Pod(get(value, problems)?),
        Kind::Service => Body::Service(get(value, problems)?),
        Kind::Endpoints => Body::Endpoints(get(value, problems)?),
        Kind::EndpointSlice => Body::EndpointSlice(get(value, problems)?),
        Kind::ConfigMap => Body::ConfigMap(get(value, problems)?),
        Kind::Secret => Body::Secret(get(value, problems)?),
        Kind::Ingress => Body::Ingress(get(value, problems)?),
        Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet => {
            Body::Controller(get(value, problems)?)
        }
        _ => Body::Opaque(value),
    })
}

fn read_spec(kind: Kind, mut map: Map<String, Value>, problems: &mut Vec<Problem>) -> Option<Body> {
    for key in map
        .keys()
        .filter(|k| !["apiVersion", "kind", "spec", "status"].contains(&k.as_str()))
    {
        problems.push(Problem {
            path: key.clone(),
            message: format!("unknown field {key:?}"),
            remedy: "settings belong under \"spec\"".into(),
            unknown_field: true,
        });
    }
    let mut spec = map.shift_remove("spec").unwrap_or_default();
    if spec.is_null() {
        spec = Value::Object(Map::new());
    }
    schema::walk(schema::shape_of(kind), &mut spec, "spec", true, problems);
    fn get<T: DeserializeOwned>(v: Value, p: &mut Vec<Problem>) -> Option<T> {
        typed(v, "spec", p)
    }
    Some(match kind {
        Kind::Gateway => Body::Gateway(get(spec, problems)?),
        Kind::VirtualService => Body::VirtualService(get(spec, problems)?),
        Kind::DestinationRule => Body::DestinationRule(get(spec, problems)?),
        Kind::ServiceEntry => Body::ServiceEntry(get(spec, problems)?),
        Kind::WorkloadEntry => Body::WorkloadEntry(get(spec, problems)?),
        Kind::Sidecar => Body::Sidecar(get(spec, problems)?),
        _ => Body::Opaque(spec),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_api_version_says_what_to_add() {
        let r = read_yaml(
            "kind: VirtualService\nmetadata:\n  name: a\n",
            "f.yaml",
            "default",
        );
        assert!(r.objects.is_empty());
        assert_eq!(
            r.diagnostics[0].to_string(),
            "Error [IST0106] (VirtualService a f.yaml:1) Schema validation error: apiVersion: \
             apiVersion is missing; add \"apiVersion: networking.istio.io/v1\""
        );
    }

    #[test]
    fn unknown_field_keeps_the_object() {
        let text = "apiVersion: networking.istio.io/v1alpha3\nkind: Gateway\nmetadata:\n  name: g\n\
                    spec:\n  selector:\n    istio: ingressgateway\n  servers:\n  - port:\n      \
                    number: 80\n      name: http\n      protocl: HTTP\n    hosts: ['*']\n";
        let r = read_yaml(text, "f.yaml", "default");
        assert_eq!(r.objects.len(), 1);
        assert_eq!(r.diagnostics[0].field, "spec.servers[0].port.protocl");
        assert_eq!(r.diagnostics[0].source.as_ref().unwrap().line, 12);
        assert_eq!(r.diagnostics[0].remedy, "did you mean \"protocol\"?");
        assert_eq!(r.objects[0].meta.namespace, "default");
    }

    #[test]
    fn lists_foreign_kinds_and_versions() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: n}}\n- {apiVersion: v1, kind: ServiceAccount, metadata: {name: b}}\n---\n\
                    {apiVersion: networking.istio.io/v9, kind: Gateway, metadata: {name: g}}\n---\n\
                    {apiVersion: networking.istio.io/v1, kind: Gatway, metadata: {name: g}}\n";
        let r = read_yaml(text, "f", "default");
        assert_eq!(r.objects.len(), 1);
        assert_eq!(r.foreign.len(), 1);
        assert!(
            r.diagnostics[0]
                .message
                .contains("use networking.istio.io/v1")
        );
        assert!(r.diagnostics[1].message.contains("known kinds: Gateway,"));
    }
}
