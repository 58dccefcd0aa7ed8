//! One generated xDS resource, its version and the sets a proxy is given.
//! The version is a fingerprint of the content, so an unchanged resource keeps
//! its version over pushes, streams and restarts of the control plane.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_xds_proto::{Any, type_url};

/// The resource types this control plane serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// CDS, `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// EDS, `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoint,
    /// LDS, `envoy.config.listener.v3.Listener`.
    Listener,
    /// RDS, `envoy.config.route.v3.RouteConfiguration`.
    Route,
    /// SDS, `envoy.extensions.transport_sockets.tls.v3.Secret`.
    Secret,
    /// ECDS, `envoy.config.core.v3.TypedExtensionConfig`.
    Extension,
    /// NDS, `istio.networking.nds.v1.NameTable`.
    NameTable,
}

impl ResourceType {
    /// Every type in the order in which changes are pushed: make before break,
    /// so that no listener or route names a cluster that was not announced.
    pub const PUSH_ORDER: [ResourceType; 7] = [
        ResourceType::Cluster,
        ResourceType::Endpoint,
        ResourceType::Listener,
        ResourceType::Route,
        ResourceType::Secret,
        ResourceType::Extension,
        ResourceType::NameTable,
    ];

    /// The type URL on the wire.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoint => type_url::ENDPOINT,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE,
            Self::Secret => type_url::SECRET,
            Self::Extension => type_url::EXTENSION_CONFIG,
            Self::NameTable => type_url::NAME_TABLE,
        }
    }

    /// The type of a URL, or `None` for a type that is not served.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::PUSH_ORDER.into_iter().find(|t| t.type_url() == url)
    }

    /// The short name users know (`CDS`).
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoint => "EDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
            Self::Secret => "SDS",
            Self::Extension => "ECDS",
            Self::NameTable => "NDS",
        }
    }

    /// True for types whose first, nameless subscription means "everything".
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::NameTable)
    }

    /// True for types where a state-of-the-world response replaces the whole set,
    /// so that absence means removal; the other types are updated name by name.
    pub fn is_full_state(self) -> bool {
        self.is_wildcard()
    }
}

/// One resource ready for the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The name proxies subscribe to.
    pub name: String,
    /// Fingerprint of the content; never 0.
    pub version: u64,
    /// The packed message.
    pub body: Any,
}

impl Resource {
    /// The version as text for `Resource.version` in delta responses.
    pub fn version_text(&self) -> String {
        format!("{:016x}", self.version)
    }
}

/// Resources of one type for one proxy, in their order.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    items: Vec<Arc<Resource>>,
    by_name: HashMap<String, usize>,
}

impl ResourceSet {
    /// Builds a set; of two resources with one name the first is kept, because a
    /// duplicate makes a proxy refuse the whole response.
    pub fn new(items: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let mut set = Self::default();
        for item in items {
            if !set.by_name.contains_key(&item.name) {
                set.by_name.insert(item.name.clone(), set.items.len());
                set.items.push(item);
            }
        }
        set
    }

    /// The resources in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.items.iter()
    }

    /// The resource of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.by_name.get(name).map(|&i| &self.items[i])
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_urls_round_trip() {
        for t in ResourceType::PUSH_ORDER {
            assert_eq!(ResourceType::from_type_url(t.type_url()), Some(t));
        }
        assert_eq!(ResourceType::from_type_url("type.googleapis.com/x"), None);
    }

    #[test]
    fn first_of_two_equal_names_stays() {
        let r = |v| {
            Arc::new(Resource {
                name: "a".into(),
                version: v,
                body: Any::default(),
            })
        };
        let set = ResourceSet::new([r(1), r(2)]);
        assert_eq!(set.len(), 1);
        assert_eq!(set.get("a").map(|r| r.version), Some(1));
    }
}
