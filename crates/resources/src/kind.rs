//! The kinds the mesh knows, as one table: group, versions, names, scope.

use std::fmt;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(
    missing_docs,
    reason = "each variant is the Kubernetes or Istio kind of the same name"
)]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    Service,
    Endpoints,
    EndpointSlice,
    ConfigMap,
    Secret,
    Ingress,
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Gateway,
    VirtualService,
    DestinationRule,
    ServiceEntry,
    WorkloadEntry,
    WorkloadGroup,
    Sidecar,
    EnvoyFilter,
    ProxyConfig,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    Telemetry,
    WasmPlugin,
}

/// Facts about a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// Name as written.
    pub name: &'static str,
    /// API group; empty for core.
    pub group: &'static str,
    /// Versions served, the storage version first.
    pub versions: &'static [&'static str],
    /// Plural resource name.
    pub plural: &'static str,
    /// Short names of kubectl.
    pub short_names: &'static [&'static str],
    /// Lives in a namespace.
    pub namespaced: bool,
}

const NETWORKING: &str = "networking.istio.io";
const THREE: &[&str] = &["v1", "v1beta1", "v1alpha3"];

macro_rules! kinds {
    ($($kind:ident $group:expr, $versions:expr, $plural:literal, $short:expr, $namespaced:literal;)*) => {
        /// Every kind, in order of the enum.
        pub const KINDS: &[KindInfo] = &[$(KindInfo {
            kind: Kind::$kind,
            name: stringify!($kind),
            group: $group,
            versions: $versions,
            plural: $plural,
            short_names: $short,
            namespaced: $namespaced,
        }),*];
    };
}

kinds! {
    Namespace "", &["v1"], "namespaces", &["ns"], false;
    Node "", &["v1"], "nodes", &["no"], false;
    Pod "", &["v1"], "pods", &["po"], true;
    Service "", &["v1"], "services", &["svc"], true;
    Endpoints "", &["v1"], "endpoints", &["ep"], true;
    EndpointSlice "discovery.k8s.io", &["v1", "v1beta1"], "endpointslices", &[], true;
    ConfigMap "", &["v1"], "configmaps", &["cm"], true;
    Secret "", &["v1"], "secrets", &[], true;
    Ingress "networking.k8s.io", &["v1", "v1beta1"], "ingresses", &["ing"], true;
    Deployment "apps", &["v1", "v1beta2", "v1beta1"], "deployments", &["deploy"], true;
    ReplicaSet "apps", &["v1", "v1beta2"], "replicasets", &["rs"], true;
    StatefulSet "apps", &["v1", "v1beta2", "v1beta1"], "statefulsets", &["sts"], true;
    DaemonSet "apps", &["v1", "v1beta2"], "daemonsets", &["ds"], true;
    Gateway NETWORKING, THREE, "gateways", &["gw"], true;
    VirtualService NETWORKING, THREE, "virtualservices", &["vs"], true;
    DestinationRule NETWORKING, THREE, "destinationrules", &["dr"], true;
    ServiceEntry NETWORKING, THREE, "serviceentries", &["se"], true;
    WorkloadEntry NETWORKING, THREE, "workloadentries", &["we"], true;
    WorkloadGroup NETWORKING, THREE, "workloadgroups", &["wg"], true;
    Sidecar NETWORKING, THREE, "sidecars", &[], true;
    EnvoyFilter NETWORKING, &["v1alpha3"], "envoyfilters", &[], true;
    ProxyConfig NETWORKING, &["v1beta1"], "proxyconfigs", &[], true;
    PeerAuthentication "security.istio.io", &["v1", "v1beta1"], "peerauthentications", &["pa"], true;
    RequestAuthentication "security.istio.io", &["v1", "v1beta1"], "requestauthentications", &["ra"], true;
    AuthorizationPolicy "security.istio.io", &["v1", "v1beta1"], "authorizationpolicies", &["ap"], true;
    Telemetry "telemetry.istio.io", &["v1", "v1alpha1"], "telemetries", &["telemetry"], true;
    WasmPlugin "extensions.istio.io", &["v1alpha1"], "wasmplugins", &[], true;
}

impl Kind {
    /// The facts of this kind.
    pub fn info(self) -> &'static KindInfo {
        &KINDS[self as usize]
    }

    /// The kind's name as written.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// True for kinds of Istio's groups.
    pub fn is_istio(self) -> bool {
        self.info().group.ends_with("istio.io")
    }

    /// The kind of an `apiVersion` and `kind`, in any version of a known group.
    pub fn of(api_version: &str, kind: &str) -> Option<Kind> {
        let group = api_version.rsplit_once('/').map_or("", |(g, _)| g);
        // Deployments, DaemonSets and Ingresses lived here until 1.16 and 1.22.
        let legacy = group == "extensions";
        KINDS
            .iter()
            .find(|k| {
                k.name == kind
                    && (k.group == group
                        || (legacy && matches!(k.group, "apps" | "networking.k8s.io")))
            })
            .map(|k| k.kind)
    }

    /// Preferred `apiVersion`.
    pub fn api_version(self) -> String {
        let i = self.info();
        if i.group.is_empty() {
            i.versions[0].to_owned()
        } else {
            format!("{}/{}", i.group, i.versions[0])
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_follows_the_enum() {
        for (i, k) in KINDS.iter().enumerate() {
            assert_eq!(k.kind as usize, i, "{}", k.name);
            assert_eq!(k.kind.info().name, k.name);
        }
        assert_eq!(KINDS.len(), Kind::WasmPlugin as usize + 1);
    }

    #[test]
    fn versions_are_one_kind() {
        for v in ["v1", "v1beta1", "v1alpha3"] {
            assert_eq!(
                Kind::of(&format!("networking.istio.io/{v}"), "Gateway"),
                Some(Kind::Gateway)
            );
        }
        assert_eq!(Kind::of("gateway.networking.k8s.io/v1", "Gateway"), None);
        assert_eq!(
            Kind::of("extensions/v1beta1", "Deployment"),
            Some(Kind::Deployment)
        );
        assert_eq!(Kind::of("v1", "Service"), Some(Kind::Service));
    }
}
