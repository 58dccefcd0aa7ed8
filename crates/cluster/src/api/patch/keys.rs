//! How lists and maps of the built-in kinds merge: by key, as a set, or as a whole.
//!
//! Types are found by walking the OpenAPI definitions; the tables below name the owner type and
//! field of every list that does not merge as a whole.

use serde_json::Value;

use crate::api::schema::builtin;

/// A type in the definitions, or none (plain data).
#[derive(Clone, Copy)]
pub(super) struct Type<'a> {
    schema: Option<&'a Value>,
    name: &'a str,
}

/// How a list merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListKind {
    /// Replaced as a whole.
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Maps told apart by these keys.
    Map(Vec<String>),
}

/// Lists merged by one key, as strategic merge sees them.
const STRATEGIC: &[(&str, &str, &str)] = &[
    ("ObjectMeta", "ownerReferences", "uid"),
    ("PodSpec", "containers", "name"),
    ("PodSpec", "initContainers", "name"),
    ("PodSpec", "ephemeralContainers", "name"),
    ("PodSpec", "imagePullSecrets", "name"),
    ("PodSpec", "schedulingGates", "name"),
    ("PodSpec", "volumes", "name"),
    ("PodSpec", "resourceClaims", "name"),
    ("PodSpec", "hostAliases", "ip"),
    ("PodSpec", "topologySpreadConstraints", "topologyKey"),
    ("Container", "env", "name"),
    ("Container", "ports", "containerPort"),
    ("Container", "volumeMounts", "mountPath"),
    ("Container", "volumeDevices", "devicePath"),
    ("EphemeralContainer", "env", "name"),
    ("EphemeralContainer", "ports", "containerPort"),
    ("EphemeralContainer", "volumeMounts", "mountPath"),
    ("EphemeralContainer", "volumeDevices", "devicePath"),
    ("PodStatus", "conditions", "type"),
    ("PodStatus", "podIPs", "ip"),
    ("PodStatus", "hostIPs", "ip"),
    ("ServiceSpec", "ports", "port"),
    ("ServiceStatus", "conditions", "type"),
    ("DeploymentStatus", "conditions", "type"),
    ("ReplicaSetStatus", "conditions", "type"),
    ("ReplicationControllerStatus", "conditions", "type"),
    ("StatefulSetStatus", "conditions", "type"),
    ("DaemonSetStatus", "conditions", "type"),
    ("JobStatus", "conditions", "type"),
    ("PersistentVolumeClaimStatus", "conditions", "type"),
    ("NamespaceStatus", "conditions", "type"),
    ("NodeStatus", "conditions", "type"),
    ("NodeStatus", "addresses", "type"),
    ("ServiceAccount", "secrets", "name"),
    ("ServiceAccount", "imagePullSecrets", "name"),
    ("MutatingWebhookConfiguration", "webhooks", "name"),
    ("ValidatingWebhookConfiguration", "webhooks", "name"),
    ("MutatingWebhook", "matchConditions", "name"),
    ("ValidatingWebhook", "matchConditions", "name"),
    ("PodDisruptionBudgetStatus", "conditions", "type"),
];

/// Where server-side apply differs: empty keys mean atomic.
const APPLY: &[(&str, &str, &[&str])] = &[
    ("Container", "ports", &["containerPort", "protocol"]),
    (
        "EphemeralContainer",
        "ports",
        &["containerPort", "protocol"],
    ),
    (
        "PodSpec",
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    ("PodStatus", "hostIPs", &[]),
    ("ServiceSpec", "ports", &["port", "protocol"]),
    ("ServiceAccount", "imagePullSecrets", &[]),
    ("JobStatus", "conditions", &[]),
    ("ResourceRequirements", "claims", &["name"]),
    ("CustomResourceDefinitionStatus", "conditions", &["type"]),
];

/// Lists of scalars merged as sets.
const SETS: &[(&str, &str)] = &[("ObjectMeta", "finalizers"), ("NodeSpec", "podCIDRs")];

/// Maps that server-side apply owns as a whole.
const ATOMIC_MAPS: &[(&str, &str)] = &[
    ("PodSpec", "nodeSelector"),
    ("ServiceSpec", "selector"),
    ("DeploymentSpec", "selector"),
    ("ReplicaSetSpec", "selector"),
    ("StatefulSetSpec", "selector"),
    ("DaemonSetSpec", "selector"),
    ("JobSpec", "selector"),
    ("EnvVarSource", "fieldRef"),
    ("EnvVarSource", "configMapKeyRef"),
    ("EnvVarSource", "secretKeyRef"),
    ("RoleBinding", "roleRef"),
    ("ClusterRoleBinding", "roleRef"),
    ("IngressBackend", "resource"),
    // Owned as a whole: field by field, the ownership of a large schema is as large as itself.
    ("CustomResourceValidation", "openAPIV3Schema"),
];

impl<'a> Type<'a> {
    /// The type of a definition.
    pub(super) fn of_definition(name: &'a str) -> Self {
        Self {
            schema: builtin::definition(name),
            name: name.rsplit('.').next().unwrap_or(name),
        }
    }

    /// A schema of a custom resource.
    pub(super) fn of_custom(schema: &'a Value) -> Self {
        Self {
            schema: Some(schema),
            name: "",
        }
    }

    /// The type of a definition's root metadata for custom resources.
    pub(super) fn object_meta() -> Type<'static> {
        Type::of_definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
    }

    fn resolve(schema: &'a Value) -> Self {
        match builtin::reference(schema) {
            Some(name) => Self::of_definition(name),
            None => Self {
                schema: Some(schema),
                name: "",
            },
        }
    }

    /// The type of a field.
    pub(super) fn field(&self, field: &str) -> Self {
        let none = Self {
            schema: None,
            name: "",
        };
        let Some(schema) = self.schema else {
            return none;
        };
        let child = schema
            .get("properties")
            .and_then(|p| p.get(field))
            .or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()));
        child.map_or(none, Self::resolve)
    }

    /// The type of a list's items.
    pub(super) fn items(&self) -> Self {
        self.schema.and_then(|s| s.get("items")).map_or(
            Self {
                schema: None,
                name: "",
            },
            Self::resolve,
        )
    }

    /// The key by which strategic merge tells the items of `field` apart.
    pub(super) fn strategic_key(&self, field: &str) -> Option<&'static str> {
        STRATEGIC
            .iter()
            .find(|(t, f, _)| *t == self.name && *f == field)
            .map(|(_, _, k)| *k)
    }

    /// Whether strategic merge treats the scalars of `field` as a set.
    pub(super) fn is_set(&self, field: &str) -> bool {
        SETS.contains(&(self.name, field))
    }

    /// How server-side apply merges the list `field` (whose own type is `child`).
    pub(super) fn apply_list(&self, field: &str, child: &Type<'_>) -> ListKind {
        if self.name.is_empty()
            && let Some(schema) = child.schema
        {
            let keys = || {
                schema["x-kubernetes-list-map-keys"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|k| k.as_str().map(str::to_owned))
                    .collect()
            };
            match schema["x-kubernetes-list-type"].as_str() {
                Some("map") => return ListKind::Map(keys()),
                Some("set") => return ListKind::Set,
                _ => {}
            }
        }
        if let Some((_, _, keys)) = APPLY
            .iter()
            .find(|(t, f, _)| *t == self.name && *f == field)
        {
            return if keys.is_empty() {
                ListKind::Atomic
            } else {
                ListKind::Map(keys.iter().map(|k| (*k).to_owned()).collect())
            };
        }
        if self.is_set(field) {
            return ListKind::Set;
        }
        self.strategic_key(field)
            .map_or(ListKind::Atomic, |k| ListKind::Map(vec![k.to_owned()]))
    }

    /// Whether server-side apply owns the map `field` as a whole.
    pub(super) fn atomic_map(&self, field: &str, child: &Type<'_>) -> bool {
        ATOMIC_MAPS.contains(&(self.name, field))
            || child
                .schema
                .is_some_and(|s| s["x-kubernetes-map-type"] == "atomic")
    }

    /// The default of an associative key that an item leaves out.
    pub(super) fn key_default(key: &str) -> Option<Value> {
        (key == "protocol").then(|| Value::from("TCP"))
    }
}
