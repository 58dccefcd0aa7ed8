//! Names of API resources: a group and a plural, with constants for the served built-in kinds.

use std::borrow::Cow;
use std::fmt;

/// An API resource without its version: `deployments.apps`, `pods`.
///
/// The API always answers in-process callers in the resource's storage version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Plural name in lower case, as in URLs.
    pub plural: Cow<'static, str>,
}

impl Resource {
    /// A resource with a name known at compile time.
    #[must_use]
    pub const fn new(group: &'static str, plural: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            plural: Cow::Borrowed(plural),
        }
    }

    /// A resource named at run time, such as a custom resource.
    #[must_use]
    pub fn named(group: impl Into<String>, plural: impl Into<String>) -> Self {
        Self {
            group: Cow::Owned(group.into()),
            plural: Cow::Owned(plural.into()),
        }
    }
}

impl fmt::Display for Resource {
    /// `plural` in the core group, else `plural.group`: the form of error messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.plural)
        } else {
            write!(f, "{}.{}", self.plural, self.group)
        }
    }
}

macro_rules! resources {
    ($($name:ident = $group:literal / $plural:literal;)*) => {
        $(
            #[doc = concat!("`", $plural, "` of group `", $group, "`.")]
            pub static $name: Resource = Resource::new($group, $plural);
        )*
    };
}

resources! {
    NAMESPACES = "" / "namespaces";
    NODES = "" / "nodes";
    PODS = "" / "pods";
    SERVICES = "" / "services";
    ENDPOINTS = "" / "endpoints";
    SECRETS = "" / "secrets";
    CONFIG_MAPS = "" / "configmaps";
    SERVICE_ACCOUNTS = "" / "serviceaccounts";
    EVENTS = "" / "events";
    PERSISTENT_VOLUMES = "" / "persistentvolumes";
    PERSISTENT_VOLUME_CLAIMS = "" / "persistentvolumeclaims";
    REPLICATION_CONTROLLERS = "" / "replicationcontrollers";
    RESOURCE_QUOTAS = "" / "resourcequotas";
    LIMIT_RANGES = "" / "limitranges";
    POD_TEMPLATES = "" / "podtemplates";
    DEPLOYMENTS = "apps" / "deployments";
    REPLICA_SETS = "apps" / "replicasets";
    STATEFUL_SETS = "apps" / "statefulsets";
    DAEMON_SETS = "apps" / "daemonsets";
    CONTROLLER_REVISIONS = "apps" / "controllerrevisions";
    JOBS = "batch" / "jobs";
    CRON_JOBS = "batch" / "cronjobs";
    ENDPOINT_SLICES = "discovery.k8s.io" / "endpointslices";
    INGRESSES = "networking.k8s.io" / "ingresses";
    INGRESS_CLASSES = "networking.k8s.io" / "ingressclasses";
    NETWORK_POLICIES = "networking.k8s.io" / "networkpolicies";
    LEASES = "coordination.k8s.io" / "leases";
    ROLES = "rbac.authorization.k8s.io" / "roles";
    ROLE_BINDINGS = "rbac.authorization.k8s.io" / "rolebindings";
    CLUSTER_ROLES = "rbac.authorization.k8s.io" / "clusterroles";
    CLUSTER_ROLE_BINDINGS = "rbac.authorization.k8s.io" / "clusterrolebindings";
    MUTATING_WEBHOOKS = "admissionregistration.k8s.io" / "mutatingwebhookconfigurations";
    VALIDATING_WEBHOOKS = "admissionregistration.k8s.io" / "validatingwebhookconfigurations";
    CUSTOM_RESOURCE_DEFINITIONS = "apiextensions.k8s.io" / "customresourcedefinitions";
    HORIZONTAL_POD_AUTOSCALERS = "autoscaling" / "horizontalpodautoscalers";
    POD_DISRUPTION_BUDGETS = "policy" / "poddisruptionbudgets";
    PRIORITY_CLASSES = "scheduling.k8s.io" / "priorityclasses";
    STORAGE_CLASSES = "storage.k8s.io" / "storageclasses";
}
