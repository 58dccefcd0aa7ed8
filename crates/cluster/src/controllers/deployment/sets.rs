//! The replica sets of a deployment: their names, templates, revisions and annotations. Pure.

use serde_json::{Value, json};

use super::rolling::{Limits, SetView};
use crate::controllers::object::{
    annotation, deleting, ensure_map, int, list, map, name, namespace, owner_reference, pruned,
    revision_number, set_annotation, set_label, short_hash,
};

/// Annotation with the number of a rollout, on deployments and their sets.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HASH_LABEL: &str = "pod-template-hash";
/// Annotations that a set does not take over from its deployment.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
];

/// The numbers of a set that the arithmetic needs.
pub fn view(set: &Value) -> SetView {
    SetView {
        replicas: int(set, "/spec/replicas").unwrap_or(1),
        available: int(set, "/status/availableReplicas").unwrap_or(0),
        max_annotation: annotation(set, MAXIMUM).and_then(|v| v.parse().ok()),
    }
}

/// The revision number of a set; 0 when it has none.
pub fn revision(set: &Value) -> i64 {
    revision_number(set, REVISION)
}

/// A pod template without its hash label and without empty fields, for comparing.
pub fn comparable_template(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template
        .pointer_mut("/metadata/labels")
        .and_then(Value::as_object_mut)
    {
        labels.remove(HASH_LABEL);
    }
    pruned(&template)
}

/// What a set is stamped with when it is sized.
pub fn size_annotations(limits: Limits) -> [(&'static str, String); 2] {
    let maximum = limits.replicas + limits.surge;
    [
        (DESIRED, limits.replicas.to_string()),
        (MAXIMUM, maximum.to_string()),
    ]
}

/// The replica set of the deployment's template.
pub fn make(deployment: &Value, limits: Limits, size: i64, revision: i64) -> Value {
    let salt = int(deployment, "/status/collisionCount")
        .unwrap_or(0)
        .unsigned_abs();
    let mut template = deployment["spec"]["template"].clone();
    let hash = short_hash(&comparable_template(&template), salt);
    set_label(&mut template, HASH_LABEL, &hash);
    let mut selector = deployment["spec"]["selector"].clone();
    ensure_map(&mut selector, "matchLabels").insert(HASH_LABEL.to_owned(), json!(hash));
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", name(deployment)),
            "namespace": namespace(deployment),
            "labels": template.pointer("/metadata/labels"),
            "ownerReferences": [owner_reference(deployment, "apps/v1", "Deployment")],
        },
        "spec": {"replicas": size, "selector": selector, "template": template},
    });
    if let Some(seconds) = int(deployment, "/spec/minReadySeconds").filter(|s| *s > 0) {
        set["spec"]["minReadySeconds"] = json!(seconds);
    }
    for (key, value) in copied_annotations(deployment) {
        set_annotation(&mut set, key, value);
    }
    set_annotation(&mut set, REVISION, &revision.to_string());
    for (key, value) in size_annotations(limits) {
        set_annotation(&mut set, key, &value);
    }
    set
}

fn copied_annotations(deployment: &Value) -> impl Iterator<Item = (&str, &str)> {
    map(deployment, "/metadata/annotations")
        .into_iter()
        .flatten()
        .filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// The merge patch that gives an existing new set its revision (`least`, unless it has a higher
/// one), the deployment's annotations and `minReadySeconds`; `None` when nothing differs.
pub fn restamp(deployment: &Value, set: &Value, least: i64) -> Option<Value> {
    let mut annotations = serde_json::Map::new();
    for (key, value) in copied_annotations(deployment) {
        if annotation(set, key) != Some(value) {
            annotations.insert(key.to_owned(), json!(value));
        }
    }
    let had = revision(set);
    if had < least {
        annotations.insert(REVISION.to_owned(), json!(least.to_string()));
        if had > 0 {
            let history = match annotation(set, REVISION_HISTORY) {
                Some(earlier) if !earlier.is_empty() => format!("{earlier},{had}"),
                _ => had.to_string(),
            };
            annotations.insert(REVISION_HISTORY.to_owned(), json!(history));
        }
    }
    let mut patch = json!({});
    if !annotations.is_empty() {
        patch["metadata"] = json!({"annotations": annotations});
    }
    let min_ready = int(deployment, "/spec/minReadySeconds").unwrap_or(0);
    if int(set, "/spec/minReadySeconds").unwrap_or(0) != min_ready {
        patch["spec"] = json!({"minReadySeconds": min_ready});
    }
    patch
        .as_object()
        .is_some_and(|p| !p.is_empty())
        .then_some(patch)
}

/// Whether the deployment's `replicas` changed since its live sets were last sized.
pub fn was_scaled<'a>(sets: impl Iterator<Item = &'a Value>, replicas: i64) -> bool {
    sets.filter(|set| int(set, "/spec/replicas").unwrap_or(0) > 0)
        .filter_map(|set| annotation(set, DESIRED)?.parse::<i64>().ok())
        .any(|desired| desired != replicas)
}

/// Whether the new set alone already is what the deployment wants, in size and availability.
pub fn saturated(new: Option<&Value>, limits: Limits) -> bool {
    new.is_some_and(|set| {
        let view = view(set);
        let desired = annotation(set, DESIRED).and_then(|v| v.parse::<i64>().ok());
        view.replicas == limits.replicas
            && desired == Some(limits.replicas)
            && view.available == limits.replicas
    })
}

/// Whether an old set has no pods and no more to do, so that history may drop it.
pub fn idle(set: &Value) -> bool {
    int(set, "/spec/replicas") == Some(0)
        && int(set, "/status/replicas").unwrap_or(0) == 0
        && int(set, "/status/observedGeneration") >= int(set, "/metadata/generation")
        && !deleting(set)
        && list(set, "/metadata/finalizers").is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::object::{label, selector_matches, text};

    fn deployment() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u", "annotations": {
                "kubernetes.io/change-cause": "why", REVISION: "7",
                "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        })
    }

    const LIMITS: Limits = Limits {
        replicas: 2,
        surge: 1,
        unavailable: 0,
    };

    #[test]
    fn a_new_set_selects_its_own_pods_only() {
        let set = make(&deployment(), LIMITS, 2, 3);
        let hash = label(&set, HASH_LABEL).expect("the hash label");
        assert_eq!(name(&set), format!("web-{hash}"));
        assert!(selector_matches(
            set.pointer("/spec/selector"),
            &set["spec"]["template"]
        ));
        assert!(!selector_matches(
            set.pointer("/spec/selector"),
            &json!({"metadata": {"labels": {"app": "web"}}})
        ));
        assert_eq!(annotation(&set, REVISION), Some("3"));
        assert_eq!(annotation(&set, "kubernetes.io/change-cause"), Some("why"));
        assert_eq!(annotation(&set, MAXIMUM), Some("3"));
        assert!(annotation(&set, NOT_COPIED[0]).is_none());
        let template = comparable_template(&deployment()["spec"]["template"]);
        assert_eq!(comparable_template(&set["spec"]["template"]), template);
    }

    #[test]
    fn a_collision_changes_the_name() {
        let mut other = deployment();
        other["status"] = json!({"collisionCount": 1});
        let (a, b) = (
            make(&deployment(), LIMITS, 1, 1),
            make(&other, LIMITS, 1, 1),
        );
        assert_ne!(name(&a), name(&b));
    }

    #[test]
    fn reuse_gives_a_new_revision_and_keeps_the_history() {
        let mut set = make(&deployment(), LIMITS, 2, 1);
        assert!(restamp(&deployment(), &set, 1).is_none());
        let patch = restamp(&deployment(), &set, 4).expect("a patch");
        assert_eq!(
            text(
                &patch,
                "/metadata/annotations/deployment.kubernetes.io~1revision"
            ),
            "4"
        );
        set_annotation(&mut set, REVISION, "4");
        set_annotation(&mut set, REVISION_HISTORY, "1");
        let patch = restamp(&deployment(), &set, 6).expect("a patch");
        assert_eq!(patch["metadata"]["annotations"][REVISION_HISTORY], "1,4");
    }

    #[test]
    fn scaling_is_seen_by_the_stamp() {
        let set = make(&deployment(), LIMITS, 2, 1);
        assert!(!was_scaled([&set].into_iter(), 2));
        assert!(was_scaled([&set].into_iter(), 5));
    }
}
