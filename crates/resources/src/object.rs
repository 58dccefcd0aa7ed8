//! An object of any kind the mesh knows, with its metadata and its origin.

use crate::{Kind, ObjectMeta, istio, kubernetes};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Kind as written; foreign kinds are possible.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceRef {
    /// File as the caller named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

impl fmt::Display for SourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A typed object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Kind.
    pub kind: Kind,
    /// `apiVersion` as written.
    pub api_version: String,
    /// Metadata.
    pub meta: ObjectMeta,
    /// Content.
    pub body: Body,
    /// Where it was read, with the positions of its fields.
    pub origin: Option<FileOrigin>,
}

/// Where an object was read.
#[derive(Debug, Clone)]
pub struct FileOrigin {
    /// File.
    pub file: Arc<str>,
    /// Positions of its fields.
    pub positions: Arc<crate::yaml::Positions>,
}

impl PartialEq for FileOrigin {
    // Positions follow from the text: two readings of one file differ in
    // nothing that matters to a comparison of objects.
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file
    }
}

impl FileOrigin {
    /// The place of a field.
    pub fn at(&self, field: &str) -> SourceRef {
        let line = self.positions.find(field).map_or(1, |p| p.line);
        SourceRef {
            file: self.file.clone(),
            line,
        }
    }
}

/// The content of an object. Kinds whose meaning is not used yet keep their
/// `spec` as it is.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    missing_docs,
    reason = "each variant holds the type of the kind it is named after"
)]
pub enum Body {
    Namespace,
    Node(kubernetes::Node),
    Pod(Box<kubernetes::Pod>),
    Service(Box<kubernetes::Service>),
    Endpoints(kubernetes::Endpoints),
    EndpointSlice(kubernetes::EndpointSlice),
    ConfigMap(kubernetes::ConfigMap),
    Secret(kubernetes::Secret),
    Ingress(Box<kubernetes::Ingress>),
    /// Deployment, ReplicaSet, StatefulSet or DaemonSet.
    Controller(Box<kubernetes::Controller>),
    Gateway(Box<istio::Gateway>),
    VirtualService(Box<istio::VirtualService>),
    DestinationRule(Box<istio::DestinationRule>),
    ServiceEntry(Box<istio::ServiceEntry>),
    WorkloadEntry(Box<istio::WorkloadEntry>),
    Sidecar(Box<istio::Sidecar>),
    Opaque(Value),
}

impl Body {
    /// The content as JSON: the `spec` of Istio kinds, what follows `metadata`
    /// of core ones. Unset fields are left out.
    pub fn to_json(&self) -> Value {
        let json = match self {
            Body::Namespace => Ok(Value::Null),
            Body::Node(b) => serde_json::to_value(b),
            Body::Pod(b) => serde_json::to_value(b),
            Body::Service(b) => serde_json::to_value(b),
            Body::Endpoints(b) => serde_json::to_value(b),
            Body::EndpointSlice(b) => serde_json::to_value(b),
            Body::ConfigMap(b) => serde_json::to_value(b),
            Body::Secret(b) => serde_json::to_value(b),
            Body::Ingress(b) => serde_json::to_value(b),
            Body::Controller(b) => serde_json::to_value(b),
            Body::Gateway(b) => serde_json::to_value(b),
            Body::VirtualService(b) => serde_json::to_value(b),
            Body::DestinationRule(b) => serde_json::to_value(b),
            Body::ServiceEntry(b) => serde_json::to_value(b),
            Body::WorkloadEntry(b) => serde_json::to_value(b),
            Body::Sidecar(b) => serde_json::to_value(b),
            Body::Opaque(v) => Ok(v.clone()),
        };
        // Maps of text keys only: there is nothing that JSON could refuse.
        let mut json = json.unwrap_or_default();
        without_unset(&mut json);
        json
    }
}

/// Drops nulls, empty texts and empty lists; empty objects may mean something
/// (`headers: {x: {}}` asks for presence).
fn without_unset(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(without_unset);
            map.retain(|_, v| match v {
                Value::Null => false,
                Value::String(s) => !s.is_empty(),
                Value::Array(a) => !a.is_empty(),
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(without_unset),
        _ => {}
    }
}

impl Object {
    /// Kind, namespace and name.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind.name().to_owned(),
            namespace: self.meta.namespace.clone(),
            name: self.meta.name.clone(),
        }
    }

    /// File and line of a field, when the object came from a file.
    pub fn source(&self, field: &str) -> Option<SourceRef> {
        self.origin.as_ref().map(|o| o.at(field))
    }
}
