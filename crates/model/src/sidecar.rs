//! The `Sidecar` object: what a sidecar imports and exposes.

use crate::{Labels, Origin, OutboundPolicy, Protocol, Selector, Str, Timestamp};

/// A sidecar object after resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Namespace.
    pub namespace: Str,
    /// Name.
    pub name: Str,
    /// The object.
    pub origin: Origin,
    /// Creation time.
    pub created: Timestamp,
    /// Workloads it applies to; `None` for the whole namespace.
    pub selector: Option<Selector>,
    /// Egress listeners; empty means everything visible.
    pub egress: Vec<EgressListener>,
    /// Ingress listeners; empty means those of the services.
    pub ingress: Vec<IngressListener>,
    /// Traffic to unknown destinations; `None` is the mesh setting.
    pub outbound_policy: Option<OutboundPolicy>,
}

/// An egress listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressListener {
    /// Port it is limited to.
    pub port: Option<(u16, Protocol)>,
    /// Address to bind.
    pub bind: Option<Str>,
    /// Imports.
    pub hosts: Vec<EgressHost>,
}

/// An import such as `default/*` or `./reviews.default.svc.cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EgressHost {
    /// Namespace: `None` is `*`; `.` is resolved; `~` is left out.
    pub namespace: Option<Str>,
    /// Host: exact or wildcard.
    pub host: Str,
}

impl EgressHost {
    /// True when it imports a host of a namespace.
    pub fn imports(&self, namespace: &str, host: &str) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == namespace)
            && crate::host::covers(&self.host, host)
    }
}

/// An ingress listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressListener {
    /// Port.
    pub port: u16,
    /// Port name.
    pub port_name: Str,
    /// Protocol.
    pub protocol: Protocol,
    /// Address to bind; empty for the workload's.
    pub bind: Str,
    /// `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`; empty for the same port.
    pub default_endpoint: Str,
}

impl Sidecar {
    /// True when it applies to a workload with these labels (in its namespace).
    pub fn selects(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_none_or(|s| s.matches(labels))
    }

    /// True when a host of a namespace is imported by any egress listener.
    pub fn imports(&self, namespace: &str, host: &str) -> bool {
        self.egress.is_empty()
            || self
                .egress
                .iter()
                .any(|l| l.hosts.iter().any(|h| h.imports(namespace, host)))
    }
}
