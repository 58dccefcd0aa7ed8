//! The built-in kinds as data: a further kind is a further row (and, where it has rules of its
//! own, a small file of defaults, validation or columns).

use k8s_openapi::{api, apiextensions_apiserver};
use schemars::{Schema, SchemaGenerator};

use super::{Conversion, NameRule};

/// One built-in kind.
pub struct Row {
    /// Group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Further versions that are served, best first.
    pub older: &'static [&'static str],
    /// Plural.
    pub plural: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Short names.
    pub short: &'static [&'static str],
    /// Categories.
    pub categories: &'static [&'static str],
    /// Lives in namespaces.
    pub namespaced: bool,
    /// Has `status`.
    pub status: bool,
    /// Has `scale` at the usual paths.
    pub scale: bool,
    /// Has `metadata.generation`.
    pub generation: bool,
    /// An update must name a resource version.
    pub needs_version: bool,
    /// Rule of its names.
    pub names: NameRule,
    /// Field selectors beside name and namespace.
    pub fields: &'static [&'static str],
    /// Adds the kind's OpenAPI definition to a generator; aliases have none of their own.
    pub schema: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// Aliases: group and plural of the kind that is stored.
    pub alias_of: Option<(&'static str, &'static str)>,
    /// Conversion to the stored form.
    pub conversion: Conversion,
    /// Warning with every answer.
    pub deprecation: Option<&'static str>,
}

/// A kind with nothing special, lent to the rows below.
const PLAIN: Row = Row {
    group: "",
    version: "v1",
    older: &[],
    plural: "",
    kind: "",
    short: &[],
    categories: &[],
    namespaced: true,
    status: false,
    scale: false,
    generation: false,
    needs_version: false,
    names: NameRule::Subdomain,
    fields: &[],
    schema: None,
    alias_of: None,
    conversion: Conversion::Version,
    deprecation: None,
};

/// All built-in kinds, in the order of discovery.
pub static ROWS: &[Row] = &[
    Row {
        plural: "namespaces",
        kind: "Namespace",
        short: &["ns"],
        namespaced: false,
        status: true,
        names: NameRule::Label,
        fields: &["status.phase"],
        schema: Some(|g| g.subschema_for::<api::core::v1::Namespace>()),
        ..PLAIN
    },
    Row {
        plural: "nodes",
        kind: "Node",
        short: &["no"],
        namespaced: false,
        status: true,
        fields: &["spec.unschedulable"],
        schema: Some(|g| g.subschema_for::<api::core::v1::Node>()),
        ..PLAIN
    },
    Row {
        plural: "pods",
        kind: "Pod",
        short: &["po"],
        categories: &["all"],
        status: true,
        generation: true,
        fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        schema: Some(|g| g.subschema_for::<api::core::v1::Pod>()),
        ..PLAIN
    },
    Row {
        plural: "services",
        kind: "Service",
        short: &["svc"],
        categories: &["all"],
        status: true,
        names: NameRule::Service,
        fields: &["spec.clusterIP", "spec.type"],
        schema: Some(|g| g.subschema_for::<api::core::v1::Service>()),
        ..PLAIN
    },
    Row {
        plural: "endpoints",
        kind: "Endpoints",
        short: &["ep"],
        schema: Some(|g| g.subschema_for::<api::core::v1::Endpoints>()),
        ..PLAIN
    },
    Row {
        plural: "secrets",
        kind: "Secret",
        fields: &["type"],
        schema: Some(|g| g.subschema_for::<api::core::v1::Secret>()),
        ..PLAIN
    },
    Row {
        plural: "configmaps",
        kind: "ConfigMap",
        short: &["cm"],
        schema: Some(|g| g.subschema_for::<api::core::v1::ConfigMap>()),
        ..PLAIN
    },
    Row {
        plural: "serviceaccounts",
        kind: "ServiceAccount",
        short: &["sa"],
        schema: Some(|g| g.subschema_for::<api::core::v1::ServiceAccount>()),
        ..PLAIN
    },
    Row {
        plural: "events",
        kind: "Event",
        short: &["ev"],
        fields: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        schema: Some(|g| g.subschema_for::<api::core::v1::Event>()),
        ..PLAIN
    },
    Row {
        plural: "persistentvolumes",
        kind: "PersistentVolume",
        short: &["pv"],
        namespaced: false,
        status: true,
        schema: Some(|g| g.subschema_for::<api::core::v1::PersistentVolume>()),
        ..PLAIN
    },
    Row {
        plural: "persistentvolumeclaims",
        kind: "PersistentVolumeClaim",
        short: &["pvc"],
        status: true,
        schema: Some(|g| g.subschema_for::<api::core::v1::PersistentVolumeClaim>()),
        ..PLAIN
    },
    Row {
        plural: "replicationcontrollers",
        kind: "ReplicationController",
        short: &["rc"],
        categories: &["all"],
        status: true,
        scale: true,
        generation: true,
        fields: &["status.replicas"],
        schema: Some(|g| g.subschema_for::<api::core::v1::ReplicationController>()),
        ..PLAIN
    },
    Row {
        plural: "resourcequotas",
        kind: "ResourceQuota",
        short: &["quota"],
        status: true,
        schema: Some(|g| g.subschema_for::<api::core::v1::ResourceQuota>()),
        ..PLAIN
    },
    Row {
        plural: "limitranges",
        kind: "LimitRange",
        short: &["limits"],
        schema: Some(|g| g.subschema_for::<api::core::v1::LimitRange>()),
        ..PLAIN
    },
    Row {
        plural: "podtemplates",
        kind: "PodTemplate",
        generation: true,
        schema: Some(|g| g.subschema_for::<api::core::v1::PodTemplate>()),
        ..PLAIN
    },
    Row {
        group: "apps",
        plural: "deployments",
        kind: "Deployment",
        short: &["deploy"],
        categories: &["all"],
        status: true,
        scale: true,
        generation: true,
        schema: Some(|g| g.subschema_for::<api::apps::v1::Deployment>()),
        ..PLAIN
    },
    Row {
        group: "apps",
        plural: "replicasets",
        kind: "ReplicaSet",
        short: &["rs"],
        categories: &["all"],
        status: true,
        scale: true,
        generation: true,
        fields: &["status.replicas"],
        schema: Some(|g| g.subschema_for::<api::apps::v1::ReplicaSet>()),
        ..PLAIN
    },
    Row {
        group: "apps",
        plural: "statefulsets",
        kind: "StatefulSet",
        short: &["sts"],
        categories: &["all"],
        status: true,
        scale: true,
        generation: true,
        schema: Some(|g| g.subschema_for::<api::apps::v1::StatefulSet>()),
        ..PLAIN
    },
    Row {
        group: "apps",
        plural: "daemonsets",
        kind: "DaemonSet",
        short: &["ds"],
        categories: &["all"],
        status: true,
        generation: true,
        schema: Some(|g| g.subschema_for::<api::apps::v1::DaemonSet>()),
        ..PLAIN
    },
    Row {
        group: "apps",
        plural: "controllerrevisions",
        kind: "ControllerRevision",
        schema: Some(|g| g.subschema_for::<api::apps::v1::ControllerRevision>()),
        ..PLAIN
    },
    Row {
        group: "batch",
        plural: "jobs",
        kind: "Job",
        categories: &["all"],
        status: true,
        generation: true,
        fields: &["status.successful"],
        schema: Some(|g| g.subschema_for::<api::batch::v1::Job>()),
        ..PLAIN
    },
    Row {
        group: "batch",
        plural: "cronjobs",
        kind: "CronJob",
        short: &["cj"],
        categories: &["all"],
        status: true,
        generation: true,
        schema: Some(|g| g.subschema_for::<api::batch::v1::CronJob>()),
        ..PLAIN
    },
    Row {
        group: "autoscaling",
        version: "v2",
        older: &["v1"],
        conversion: Conversion::OldAutoscaler,
        plural: "horizontalpodautoscalers",
        kind: "HorizontalPodAutoscaler",
        short: &["hpa"],
        categories: &["all"],
        status: true,
        schema: Some(|g| g.subschema_for::<api::autoscaling::v2::HorizontalPodAutoscaler>()),
        ..PLAIN
    },
    Row {
        group: "policy",
        plural: "poddisruptionbudgets",
        kind: "PodDisruptionBudget",
        short: &["pdb"],
        status: true,
        generation: true,
        schema: Some(|g| g.subschema_for::<api::policy::v1::PodDisruptionBudget>()),
        ..PLAIN
    },
    Row {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        kind: "EndpointSlice",
        generation: true,
        schema: Some(|g| g.subschema_for::<api::discovery::v1::EndpointSlice>()),
        ..PLAIN
    },
    Row {
        group: "networking.k8s.io",
        plural: "ingresses",
        kind: "Ingress",
        short: &["ing"],
        status: true,
        generation: true,
        schema: Some(|g| g.subschema_for::<api::networking::v1::Ingress>()),
        ..PLAIN
    },
    Row {
        group: "networking.k8s.io",
        plural: "ingressclasses",
        kind: "IngressClass",
        namespaced: false,
        generation: true,
        schema: Some(|g| g.subschema_for::<api::networking::v1::IngressClass>()),
        ..PLAIN
    },
    Row {
        group: "networking.k8s.io",
        plural: "networkpolicies",
        kind: "NetworkPolicy",
        short: &["netpol"],
        generation: true,
        schema: Some(|g| g.subschema_for::<api::networking::v1::NetworkPolicy>()),
        ..PLAIN
    },
    Row {
        group: "coordination.k8s.io",
        plural: "leases",
        kind: "Lease",
        needs_version: true,
        schema: Some(|g| g.subschema_for::<api::coordination::v1::Lease>()),
        ..PLAIN
    },
    Row {
        group: "rbac.authorization.k8s.io",
        plural: "roles",
        kind: "Role",
        names: NameRule::Path,
        schema: Some(|g| g.subschema_for::<api::rbac::v1::Role>()),
        ..PLAIN
    },
    Row {
        group: "rbac.authorization.k8s.io",
        plural: "rolebindings",
        kind: "RoleBinding",
        names: NameRule::Path,
        schema: Some(|g| g.subschema_for::<api::rbac::v1::RoleBinding>()),
        ..PLAIN
    },
    Row {
        group: "rbac.authorization.k8s.io",
        plural: "clusterroles",
        kind: "ClusterRole",
        namespaced: false,
        names: NameRule::Path,
        schema: Some(|g| g.subschema_for::<api::rbac::v1::ClusterRole>()),
        ..PLAIN
    },
    Row {
        group: "rbac.authorization.k8s.io",
        plural: "clusterrolebindings",
        kind: "ClusterRoleBinding",
        namespaced: false,
        names: NameRule::Path,
        schema: Some(|g| g.subschema_for::<api::rbac::v1::ClusterRoleBinding>()),
        ..PLAIN
    },
    Row {
        group: "admissionregistration.k8s.io",
        plural: "mutatingwebhookconfigurations",
        kind: "MutatingWebhookConfiguration",
        categories: &["api-extensions"],
        namespaced: false,
        generation: true,
        schema: Some(|g| {
            g.subschema_for::<api::admissionregistration::v1::MutatingWebhookConfiguration>()
        }),
        ..PLAIN
    },
    Row {
        group: "admissionregistration.k8s.io",
        plural: "validatingwebhookconfigurations",
        kind: "ValidatingWebhookConfiguration",
        categories: &["api-extensions"],
        namespaced: false,
        generation: true,
        schema: Some(|g| {
            g.subschema_for::<api::admissionregistration::v1::ValidatingWebhookConfiguration>()
        }),
        ..PLAIN
    },
    Row {
        group: "apiextensions.k8s.io",
        plural: "customresourcedefinitions",
        kind: "CustomResourceDefinition",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        generation: true,
        needs_version: true,
        schema: Some(|g| {
            g.subschema_for::<apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>()
        }),
        ..PLAIN
    },
    Row {
        group: "scheduling.k8s.io",
        plural: "priorityclasses",
        kind: "PriorityClass",
        short: &["pc"],
        namespaced: false,
        generation: true,
        schema: Some(|g| g.subschema_for::<api::scheduling::v1::PriorityClass>()),
        ..PLAIN
    },
    Row {
        group: "storage.k8s.io",
        plural: "storageclasses",
        kind: "StorageClass",
        short: &["sc"],
        namespaced: false,
        schema: Some(|g| g.subschema_for::<api::storage::v1::StorageClass>()),
        ..PLAIN
    },
    Row {
        group: "events.k8s.io",
        plural: "events",
        kind: "Event",
        short: &["ev"],
        fields: &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        alias_of: Some(("", "events")),
        conversion: Conversion::Event,
        ..PLAIN
    },
    Row {
        group: "extensions",
        version: "v1beta1",
        plural: "deployments",
        kind: "Deployment",
        status: true,
        scale: true,
        generation: true,
        alias_of: Some(("apps", "deployments")),
        conversion: Conversion::OldDeployment,
        deprecation: Some(
            "extensions/v1beta1 Deployment is deprecated in v1.9+, unavailable in v1.16+ of Kubernetes; use apps/v1 Deployment",
        ),
        ..PLAIN
    },
    Row {
        group: "extensions",
        version: "v1beta1",
        plural: "ingresses",
        kind: "Ingress",
        status: true,
        generation: true,
        alias_of: Some(("networking.k8s.io", "ingresses")),
        conversion: Conversion::OldIngress,
        deprecation: Some(
            "extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+ of Kubernetes; use networking.k8s.io/v1 Ingress",
        ),
        ..PLAIN
    },
];
