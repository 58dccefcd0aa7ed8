//! Labels, annotations and fixed names that Istio's users and tools rely on.

/// Namespace label that turns injection on (`enabled`) or off (`disabled`).
pub const INJECTION_LABEL: &str = "istio-injection";
/// Revision of the control plane for a namespace or pod.
pub const REVISION_LABEL: &str = "istio.io/rev";
/// Pod label (and older annotation) that decides injection.
pub const SIDECAR_INJECT: &str = "sidecar.istio.io/inject";
/// Marks a pod whose sidecar accepts mesh TLS (`istio`).
pub const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";
/// Canonical service name.
pub const CANONICAL_NAME_LABEL: &str = "service.istio.io/canonical-name";
/// Canonical service revision.
pub const CANONICAL_REVISION_LABEL: &str = "service.istio.io/canonical-revision";
/// Locality of a pod as `region.zone.subzone` (dots, since labels admit no slash).
pub const LOCALITY_LABEL: &str = "istio-locality";
/// Region label of nodes.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// Zone label of nodes.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Older region label of nodes.
pub const REGION_LABEL_BETA: &str = "failure-domain.beta.kubernetes.io/region";
/// Older zone label of nodes.
pub const ZONE_LABEL_BETA: &str = "failure-domain.beta.kubernetes.io/zone";
/// Sub-zone label of nodes.
pub const SUBZONE_LABEL: &str = "topology.istio.io/subzone";
/// Network label of pods, namespaces and services.
pub const NETWORK_LABEL: &str = "topology.istio.io/network";
/// Marks an endpoint that is being drained.
pub const DRAINING_LABEL: &str = "istio.io/draining";
/// `exportTo` of a Kubernetes Service, comma separated.
pub const EXPORT_TO_ANNOTATION: &str = "networking.istio.io/exportTo";
/// Traffic distribution of a Kubernetes Service.
pub const TRAFFIC_DISTRIBUTION_ANNOTATION: &str = "networking.istio.io/traffic-distribution";
/// Owner service of an EndpointSlice.
pub const SLICE_SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Codes that are not reported for an object, comma separated or `*`.
pub const SUPPRESS_ANNOTATION: &str = "galley.istio.io/analyze-suppress";
/// Template of an injected pod.
pub const STATUS_ANNOTATION: &str = "sidecar.istio.io/status";
/// Ingress class annotation of older Ingress objects.
pub const INGRESS_CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// User id of the sidecar.
pub const PROXY_UID: i64 = 1337;
/// Container name of the sidecar.
pub const PROXY_CONTAINER: &str = "istio-proxy";
/// Default root namespace.
pub const ROOT_NAMESPACE: &str = "istio-system";
