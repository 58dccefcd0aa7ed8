//! The resource types, in the order in which they are asked for.
use lateen_xds_proto::type_url;

/// A type of xDS resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Clusters (CDS).
    Cluster,
    /// Endpoints (EDS).
    Endpoints,
    /// Listeners (LDS).
    Listener,
    /// Route tables (RDS).
    Routes,
    /// Secrets (SDS).
    Secret,
}

impl Kind {
    /// All types, in request order.
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Routes,
        Self::Secret,
    ];

    /// Type URL.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoints => type_url::ENDPOINT,
            Self::Listener => type_url::LISTENER,
            Self::Routes => type_url::ROUTE,
            Self::Secret => type_url::SECRET,
        }
    }

    /// The type of a URL.
    #[must_use]
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.type_url() == url)
    }

    /// Whether all resources are asked for, not named ones.
    #[must_use]
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// The word Envoy uses in its messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoint",
            Self::Listener => "listener",
            Self::Routes => "route",
            Self::Secret => "secret",
        }
    }
}
