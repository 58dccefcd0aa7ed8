//! Who a proxy says it is: the node id `<kind>~<ip>~<pod>.<ns>~<domain>`, its metadata
//! and the extensions it was built with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lateen_model::Str;
use lateen_xds_proto::envoy::config::core::v3::Node;
use lateen_xds_proto::google::protobuf::value::Kind;
use lateen_xds_proto::{Struct, Value};

/// The role a proxy plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Beside an application, id prefix `sidecar`.
    Sidecar,
    /// At the edge, id prefix `router`.
    Router,
}

impl NodeKind {
    /// The id's prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// Why a node is refused; the text goes back to the proxy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodeError {
    /// The first request carries no node.
    #[error("the first request of a stream must carry a node")]
    Missing,
    /// Not four parts, or an empty one.
    #[error("node id {0:?} is not <sidecar|router>~<ip>~<pod>.<namespace>~<domain>")]
    Shape(String),
    /// A role that is not served.
    #[error("node id {0:?}: unknown kind, expected sidecar or router")]
    Kind(String),
    /// No address where one should be.
    #[error("node id {0:?}: the second part is no IP address")]
    Address(String),
}

/// A proxy as it introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The whole id.
    pub id: String,
    /// Its role.
    pub kind: NodeKind,
    /// The address of the id, then those of `INSTANCE_IPS`.
    pub addresses: Vec<IpAddr>,
    /// The pod's name, or what the id has in its place.
    pub name: String,
    /// The namespace: metadata `NAMESPACE`, else the id's.
    pub namespace: String,
    /// The DNS domain of the id, `<ns>.svc.<cluster domain>`.
    pub domain: String,
    /// Labels that the proxy claims (`LABELS`); the Pod object, where known, wins.
    pub labels: BTreeMap<String, String>,
    /// Top-level string, number and boolean metadata.
    pub metadata: BTreeMap<String, String>,
    /// Locality as `region/zone/subzone`, empty when not given.
    pub locality: String,
    /// The extensions the proxy lists, cut down to those the generator asks about; `None`
    /// when it lists none, which is how the mesh's own proxy says that it has all of them.
    pub extensions: Option<Arc<BTreeSet<Str>>>,
}

impl NodeInfo {
    /// Reads a node.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn parse(node: Option<&Node>) -> Result<Self, NodeError> {
        let node = node.ok_or(NodeError::Missing)?;
        let shape = || NodeError::Shape(node.id.clone());
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, address, workload, domain] = parts[..] else {
            return Err(shape());
        };
        let kind = match kind {
            "sidecar" => NodeKind::Sidecar,
            "router" => NodeKind::Router,
            _ => return Err(NodeError::Kind(node.id.clone())),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| NodeError::Address(node.id.clone()))?;
        let (name, id_namespace) = workload.rsplit_once('.').ok_or_else(shape)?;
        if name.is_empty() || id_namespace.is_empty() {
            return Err(shape());
        }
        let empty = Struct::default();
        let fields = node.metadata.as_ref().unwrap_or(&empty);
        let metadata: BTreeMap<String, String> = fields
            .fields
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), scalar(v)?)))
            .collect();
        let mut addresses = vec![address];
        for ip in metadata
            .get("INSTANCE_IPS")
            .map_or("", String::as_str)
            .split(',')
        {
            if let Ok(ip) = ip.trim().parse()
                && !addresses.contains(&ip)
            {
                addresses.push(ip);
            }
        }
        let namespace = metadata.get("NAMESPACE").filter(|n| !n.is_empty());
        Ok(Self {
            id: node.id.clone(),
            kind,
            addresses,
            name: name.to_owned(),
            namespace: namespace.map_or(id_namespace, String::as_str).to_owned(),
            domain: domain.to_owned(),
            labels: labels(fields.fields.get("LABELS")),
            metadata,
            locality: node.locality.as_ref().map(locality).unwrap_or_default(),
            extensions: extensions(node),
        })
    }

    /// `<pod>.<ns>`, the name of a proxy in tables.
    pub fn display_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// A metadata value as text, empty when absent.
    pub fn meta(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", String::as_str)
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value.kind.as_ref()? {
        Kind::StringValue(s) => Some(s.clone()),
        Kind::NumberValue(n) => Some(n.to_string()),
        Kind::BoolValue(b) => Some(b.to_string()),
        _ => None,
    }
}

fn labels(value: Option<&Value>) -> BTreeMap<String, String> {
    match value.and_then(|v| v.kind.as_ref()) {
        Some(Kind::StructValue(s)) => s
            .fields
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), scalar(v)?)))
            .collect(),
        _ => BTreeMap::new(),
    }
}

fn locality(l: &lateen_xds_proto::envoy::config::core::v3::Locality) -> String {
    let text = format!("{}/{}/{}", l.region, l.zone, l.sub_zone);
    text.trim_end_matches('/').to_owned()
}

fn extensions(node: &Node) -> Option<Arc<BTreeSet<Str>>> {
    if node.extensions.is_empty() {
        return None;
    }
    let asked = |name: &&str| lateen_xds::EXTENSIONS.contains(name);
    let names = node
        .extensions
        .iter()
        .map(|e| e.name.as_str())
        .filter(asked);
    Some(Arc::new(names.map(Str::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_xds_proto::envoy::config::core::v3::Extension;

    fn node(id: &str) -> Node {
        Node {
            id: id.into(),
            ..Node::default()
        }
    }

    #[test]
    fn a_sidecar_introduces_itself() {
        let mut n = node("sidecar~10.1.2.3~reviews-v1-abc.default~default.svc.cluster.local");
        let text = |s: &str| Value {
            kind: Some(Kind::StringValue(s.into())),
        };
        let mut meta = Struct::default();
        meta.fields
            .insert("INSTANCE_IPS".into(), text("10.1.2.3,fd00::3"));
        let mut l = Struct::default();
        l.fields.insert("app".into(), text("reviews"));
        meta.fields.insert(
            "LABELS".into(),
            Value {
                kind: Some(Kind::StructValue(l)),
            },
        );
        n.metadata = Some(meta);
        n.extensions = vec![Extension {
            name: "envoy.filters.http.router".into(),
            ..Extension::default()
        }];
        let info = NodeInfo::parse(Some(&n)).expect("good node");
        assert_eq!(info.display_name(), "reviews-v1-abc.default");
        assert_eq!(info.addresses.len(), 2);
        assert_eq!(info.labels["app"], "reviews");
        assert!(
            info.extensions
                .expect("listed")
                .contains("envoy.filters.http.router")
        );
    }

    #[test]
    fn bad_ids_are_refused_with_a_reason() {
        assert_eq!(NodeInfo::parse(None), Err(NodeError::Missing));
        for (id, want) in [
            ("x", "is not <sidecar"),
            ("ztunnel~1.1.1.1~a.b~c", "unknown kind"),
            ("sidecar~nine~a.b~c", "no IP address"),
            ("sidecar~1.1.1.1~a~c", "is not <sidecar"),
        ] {
            let e = NodeInfo::parse(Some(&node(id))).expect_err(id).to_string();
            assert!(e.contains(want), "{id}: {e}");
        }
    }
}
