//! Workloads as metrics name them: from the node's metadata, from an
//! endpoint's, from a peer's header.

use lateen_proxy_core::config::bootstrap::Node;
use lateen_proxy_core::config::{Fields, Metadata, Name, Value};

use super::peer;
use crate::http::head::Line;
use crate::http::known::Known;

/// What is not known.
pub(super) const UNKNOWN: &str = "unknown";

/// Longest name of a Kubernetes object, in bytes (RFC 1123 subdomain).
const LONGEST: usize = 253;

/// A workload; unknown parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Name of the deployment or the like.
    pub name: Name,
    /// Namespace.
    pub namespace: Name,
    /// Label `app`.
    pub app: Name,
    /// Label `version`.
    pub version: Name,
    /// Canonical service.
    pub canonical_service: Name,
    /// Canonical revision.
    pub canonical_revision: Name,
    /// Cluster id.
    pub cluster: Name,
}

/// This proxy's own workload, with what peers are told of it.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// The workload.
    pub workload: Workload,
    /// Value of `x-envoy-peer-metadata`; empty without a node.
    pub header: Vec<u8>,
    /// Value of `x-envoy-peer-metadata-id`: the node id.
    pub id: Vec<u8>,
    /// The lines of both; none without a node.
    pub lines: Option<[Line; 2]>,
    /// The node's cluster: the service that spans are of.
    pub service: Name,
    /// The node's zone.
    pub zone: Name,
}

impl Own {
    /// From the bootstrap's node; metadata as Istio's injection sets it.
    #[must_use]
    pub fn of_node(node: &Node) -> Self {
        let workload = Workload::of_metadata(&node.metadata);
        let header = match node.metadata.is_empty() {
            true => Vec::new(),
            false => peer::encode(&node.metadata, &workload).into_bytes(),
        };
        let id = node.id.as_bytes().to_vec();
        let lines = || {
            let metadata = Line::new(Known::XEnvoyPeerMetadata, &header);
            [metadata, Line::new(Known::XEnvoyPeerMetadataId, &id)]
        };
        Self {
            lines: (!header.is_empty()).then(lines),
            workload,
            header,
            id,
            service: node.cluster.clone(),
            zone: node.locality.zone.clone(),
        }
    }
}

fn text(map: &Fields, key: &str) -> Name {
    map.get(key)
        .and_then(Value::as_str)
        .map_or_else(Name::default, Name::from)
}

fn first(names: impl IntoIterator<Item = Name>) -> Name {
    names
        .into_iter()
        .find(|n| !n.is_empty())
        .unwrap_or_default()
}

impl Workload {
    /// From a node's metadata: `WORKLOAD_NAME`, `NAMESPACE`, `LABELS`,
    /// `CLUSTER_ID`. The canonical name falls back as Istio's does: label
    /// `app.kubernetes.io/name`, `app`, then the workload's name.
    #[must_use]
    pub fn of_metadata(metadata: &Fields) -> Self {
        let none = Fields::new();
        let labels = match metadata.get("LABELS") {
            Some(Value::Struct(labels)) => labels,
            _ => &none,
        };
        let name = text(metadata, "WORKLOAD_NAME");
        let (app, version) = (text(labels, "app"), text(labels, "version"));
        let known = !name.is_empty() || !labels.is_empty();
        Self {
            canonical_service: first([
                text(labels, "service.istio.io/canonical-name"),
                text(labels, "app.kubernetes.io/name"),
                app.clone(),
                name.clone(),
            ]),
            canonical_revision: first([
                text(labels, "service.istio.io/canonical-revision"),
                text(labels, "app.kubernetes.io/version"),
                version.clone(),
                if known {
                    "latest".into()
                } else {
                    Name::default()
                },
            ]),
            name,
            namespace: text(metadata, "NAMESPACE"),
            app,
            version,
            cluster: text(metadata, "CLUSTER_ID"),
        }
    }

    /// From an endpoint's metadata `istio.workload`:
    /// `name;namespace;canonical name;canonical revision;cluster`.
    #[must_use]
    pub fn of_endpoint(metadata: &Metadata) -> Option<Self> {
        let value = metadata.get("istio")?.path(["workload"])?.as_str()?;
        let mut parts = value.split(';');
        let mut next = || parts.next().map_or_else(Name::default, Name::from);
        let (name, namespace) = (next(), next());
        let (canonical_service, canonical_revision, cluster) = (next(), next(), next());
        Some(Self {
            name,
            namespace,
            canonical_service,
            canonical_revision,
            cluster,
            ..Self::default()
        })
        .filter(|w| !w.name.is_empty())
    }

    /// From the value of a peer's `x-envoy-peer-metadata`; none when it cannot be read. What is
    /// longer than any name of Kubernetes is unknown.
    #[must_use]
    pub fn of_header(value: &[u8]) -> Option<Self> {
        let mut workload = peer::decode(value).map(|metadata| Self::of_metadata(&metadata))?;
        for part in workload.parts_mut() {
            if part.len() > LONGEST {
                *part = Name::default();
            }
        }
        Some(workload)
    }

    /// Its parts in the order of [`SOURCE`] and [`DESTINATION`].
    pub(super) fn parts(&self) -> [&Name; 7] {
        [
            &self.name,
            &self.namespace,
            &self.app,
            &self.version,
            &self.canonical_service,
            &self.canonical_revision,
            &self.cluster,
        ]
    }

    fn parts_mut(&mut self) -> [&mut Name; 7] {
        [
            &mut self.name,
            &mut self.namespace,
            &mut self.app,
            &mut self.version,
            &mut self.canonical_service,
            &mut self.canonical_revision,
            &mut self.cluster,
        ]
    }
}

pub(super) const SOURCE: [&str; 7] = [
    "source_workload",
    "source_workload_namespace",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
];

pub(super) const DESTINATION: [&str; 7] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Value {
        Value::String(s.into())
    }

    fn node() -> Node {
        let labels = [("app", "reviews"), ("version", "v2")];
        let labels = labels.map(|(k, v)| (Name::from(k), text(v)));
        Node {
            id: "sidecar~10.0.0.1~reviews-v2-x.default~default.svc.cluster.local".into(),
            metadata: Fields::from([
                ("WORKLOAD_NAME".into(), text("reviews-v2")),
                ("NAMESPACE".into(), text("default")),
                ("CLUSTER_ID".into(), text("Kubernetes")),
                ("LABELS".into(), Value::Struct(Fields::from(labels))),
                ("PROXY_CONFIG".into(), text("not for peers")),
            ]),
            ..Node::default()
        }
    }

    #[test]
    fn a_node_tells_itself_and_is_understood() {
        let own = Own::of_node(&node());
        assert_eq!(&*own.workload.canonical_service, "reviews");
        assert_eq!(&*own.workload.canonical_revision, "v2");
        assert_eq!(Workload::of_header(&own.header), Some(own.workload));
        assert!(Own::of_node(&Node::default()).header.is_empty());
    }

    #[test]
    fn what_no_name_can_be_is_unknown() {
        let mut node = node();
        let long = "x".repeat(254);
        node.metadata.insert("NAMESPACE".into(), text(&long));
        let own = Own::of_node(&node);
        let told = Workload::of_header(&own.header).unwrap();
        assert_eq!((&*told.namespace, &*told.name), ("", "reviews-v2"));
    }

    #[test]
    fn broken_headers_are_no_workload() {
        let own = Own::of_node(&node());
        assert_eq!(Workload::of_header(b"%%%"), None);
        for cut in (0..own.header.len()).step_by(4).skip(1) {
            // No panic on any prefix; most are not a whole message.
            let _ = Workload::of_header(&own.header[..cut]);
        }
        // A length that points past the end.
        assert_eq!(Workload::of_header(b"Cv8B"), None);
    }

    #[test]
    fn an_endpoint_names_its_workload() {
        let istio = Fields::from([("workload".into(), text("reviews-v1;default;reviews;v1;c1"))]);
        let filter = Fields::from([("istio".into(), Value::Struct(istio))]);
        let metadata = Metadata::from(filter);
        let workload = Workload::of_endpoint(&metadata).unwrap();
        let parts = workload.parts().map(|part| &**part);
        assert_eq!(
            parts,
            ["reviews-v1", "default", "", "", "reviews", "v1", "c1"]
        );
        assert_eq!(Workload::of_endpoint(&Metadata::default()), None);
    }
}
