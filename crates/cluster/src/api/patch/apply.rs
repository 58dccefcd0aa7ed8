//! Server-side apply and the bookkeeping of `metadata.managedFields`.

use serde_json::{Map, Value, json};

use super::fields::{self, Set};
use crate::api::error::ApiError;
use crate::api::kinds::Kind;
use crate::api::meta;

/// Most `Update` entries kept before the oldest are folded into one.
const MAX_UPDATE_ENTRIES: usize = 10;

/// One manager's fields.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    time: String,
    subresource: String,
    set: Set,
}

fn entries(object: &Value) -> Vec<Entry> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|e| e["fieldsV1"].is_object())
        .map(|e| Entry {
            manager: text(&e["manager"]),
            operation: text(&e["operation"]),
            api_version: text(&e["apiVersion"]),
            time: text(&e["time"]),
            subresource: text(&e["subresource"]),
            set: e["fieldsV1"].as_object().cloned().unwrap_or_default(),
        })
        .collect()
}

fn store(object: &mut Value, list: Vec<Entry>) {
    let list: Vec<Value> = list
        .into_iter()
        .filter(|e| !e.set.is_empty())
        .map(|e| {
            let mut m = Map::new();
            m.insert("manager".into(), e.manager.into());
            m.insert("operation".into(), e.operation.into());
            m.insert("apiVersion".into(), e.api_version.into());
            m.insert("time".into(), e.time.into());
            m.insert("fieldsType".into(), "FieldsV1".into());
            m.insert("fieldsV1".into(), Value::Object(e.set));
            if !e.subresource.is_empty() {
                m.insert("subresource".into(), e.subresource.into());
            }
            Value::Object(m)
        })
        .collect();
    if list.is_empty() {
        meta::remove(&mut object["metadata"], "managedFields");
    } else {
        object["metadata"]["managedFields"] = Value::Array(list);
    }
}

/// Who writes, for the bookkeeping.
pub struct Writer<'a> {
    /// Field manager.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
}

/// Records an ordinary write: what changed between `old` (null on create) and `new` belongs to
/// the writer now.
pub fn record_update(kind: &Kind, old: &Value, new: &mut Value, writer: &Writer<'_>) {
    let mut list = entries(new);
    let (changed, gone) = fields::difference_of(kind, old, new);
    if changed.is_empty() && gone.is_empty() {
        return;
    }
    let is_own = |e: &Entry| {
        e.manager == writer.manager
            && e.operation == "Update"
            && e.subresource == writer.subresource
            && e.api_version == writer.api_version
    };
    let mut own = match list.iter().position(is_own) {
        Some(i) => list.remove(i),
        None => Entry {
            manager: writer.manager.to_owned(),
            operation: "Update".to_owned(),
            api_version: writer.api_version.to_owned(),
            time: String::new(),
            subresource: writer.subresource.to_owned(),
            set: Set::new(),
        },
    };
    for e in &mut list {
        e.set = fields::minus(&fields::minus(&e.set, &changed), &gone);
    }
    own.set = fields::minus(&own.set, &gone);
    fields::add(&mut own.set, &changed);
    own.time = meta::now_text();
    list.push(own);
    fold(&mut list);
    store(new, list);
}

/// Folds the oldest `Update` entries into `ancient-changes` when there are too many.
fn fold(list: &mut Vec<Entry>) {
    while list.iter().filter(|e| e.operation == "Update").count() > MAX_UPDATE_ENTRIES {
        let mut oldest: Vec<usize> = (0..list.len())
            .filter(|i| list[*i].operation == "Update")
            .collect();
        oldest.sort_by(|a, b| list[*a].time.cmp(&list[*b].time));
        let (first, second) = (oldest[0].min(oldest[1]), oldest[0].max(oldest[1]));
        let gone = list.remove(second);
        let kept = &mut list[first];
        fields::add(&mut kept.set, &gone.set);
        "ancient-changes".clone_into(&mut kept.manager);
    }
}

/// Merges an applied configuration into the live object (null: none yet) and returns the result
/// with its bookkeeping.
///
/// # Errors
/// 409 with the conflicting fields unless `force`; 500, as the usual server has it, for list items
/// without their keys.
pub fn apply(
    kind: &Kind,
    live: &Value,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApiError> {
    if let Some(why) = fields::unkeyed(kind, applied) {
        let what = &kind.kind;
        return Err(ApiError::new(
            500,
            "",
            format!("failed to create typed patch object ({what}): {why}"),
        ));
    }
    let mut list = entries(live);
    let wanted = fields::of_object(kind, applied);
    if list.is_empty() && !live.is_null() {
        list.push(Entry {
            manager: "before-first-apply".to_owned(),
            operation: "Update".to_owned(),
            api_version: writer.api_version.to_owned(),
            time: meta::now_text(),
            subresource: String::new(),
            set: fields::of_object(kind, live),
        });
    }
    let is_own = |e: &Entry| {
        e.manager == writer.manager && e.operation == "Apply" && e.subresource == writer.subresource
    };
    let own = list.iter().position(is_own).map(|i| list.remove(i));
    take_conflicts(&mut list, &wanted, live, applied, force)?;
    let mut result = if live.is_null() {
        json!({"apiVersion": applied["apiVersion"], "kind": applied["kind"]})
    } else {
        live.clone()
    };
    if let Some(own) = &own {
        let mut dropped = fields::minus(&own.set, &wanted);
        for e in &list {
            dropped = fields::minus(&dropped, &e.set);
        }
        fields::remove(&mut result, &dropped);
    }
    fields::merge_applied(kind, &mut result, applied);
    let unchanged = own.as_ref().is_some_and(|o| o.set == wanted);
    list.push(Entry {
        manager: writer.manager.to_owned(),
        operation: "Apply".to_owned(),
        api_version: writer.api_version.to_owned(),
        time: own
            .filter(|_| unchanged)
            .map_or_else(meta::now_text, |o| o.time),
        subresource: writer.subresource.to_owned(),
        set: wanted,
    });
    store(&mut result, list);
    Ok(result)
}

fn take_conflicts(
    others: &mut [Entry],
    wanted: &Set,
    live: &Value,
    applied: &Value,
    force: bool,
) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    let mut by_manager: Vec<(String, Vec<String>)> = Vec::new();
    for e in others.iter_mut() {
        let shared = fields::common(wanted, &e.set);
        for (path, leaf) in fields::differing_leaves(&shared, live, applied) {
            if force {
                e.set = fields::minus(&e.set, &leaf);
                continue;
            }
            let sub = if e.subresource.is_empty() {
                String::new()
            } else {
                format!(" with subresource {:?}", e.subresource)
            };
            // Appliers are one manager whatever version they applied in; updaters are one per version.
            let using = if e.operation == "Apply" {
                String::new()
            } else {
                format!(" using {}", e.api_version)
            };
            let who = format!("conflict with {:?}{sub}{using}", e.manager);
            causes.push(json!({"reason": "FieldManagerConflict", "message": who, "field": path}));
            match by_manager.iter_mut().find(|(w, _)| *w == who) {
                Some((_, paths)) => paths.push(path),
                None => by_manager.push((who, vec![path])),
            }
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    let n = causes.len();
    let plural = if n == 1 { "" } else { "s" };
    let text = match by_manager.as_slice() {
        [(who, paths)] if paths.len() == 1 => format!("{who}: {}", paths[0]),
        many => many
            .iter()
            .map(|(who, paths)| {
                let lines: Vec<String> = paths.iter().map(|p| format!("- {p}")).collect();
                format!("{who}:\n{}", lines.join("\n"))
            })
            .collect::<Vec<_>>()
            .join("\n"),
    };
    let mut e = ApiError::new(
        409,
        "Conflict",
        format!("Apply failed with {n} conflict{plural}: {text}"),
    );
    e.details = Some(Box::new(json!({"causes": causes})));
    Err(e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinds::Registry;
    use crate::api::resource::DEPLOYMENTS;

    fn writer(manager: &str) -> Writer<'_> {
        Writer {
            manager,
            api_version: "apps/v1",
            subresource: "",
        }
    }

    fn config(replicas: Option<u64>, images: &[(&str, &str)]) -> Value {
        let containers: Vec<Value> = images
            .iter()
            .map(|(n, i)| json!({"name": n, "image": i, "ports": [{"containerPort": 80}]}))
            .collect();
        let mut c = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "labels": {"a": "1"}},
            "spec": {"template": {"spec": {"containers": containers}}}});
        if let Some(r) = replicas {
            c["spec"]["replicas"] = r.into();
        }
        c
    }

    #[test]
    fn appliers_own_what_they_say_and_drop_what_they_leave_out() {
        let registry = Registry::build(&[]);
        let kind = registry.kind(&DEPLOYMENTS).expect("kind");
        let both = [("a", "a:1"), ("b", "b:1")];
        let one = apply(
            kind,
            &Value::Null,
            &config(Some(2), &both),
            &writer("k"),
            false,
        )
        .expect("first");
        assert_eq!(one["spec"]["replicas"], 2);
        let mut second = config(None, &both[..1]);
        second["metadata"]["labels"] = json!({"b": "2"});
        let two = apply(kind, &one, &second, &writer("k"), false).expect("second");
        assert!(two["spec"].get("replicas").is_none());
        let containers = two["spec"]["template"]["spec"]["containers"]
            .as_array()
            .expect("list");
        assert_eq!(containers.len(), 1);
        assert_eq!(two["metadata"]["labels"], json!({"b": "2"}));
    }

    #[test]
    fn list_items_without_or_with_equal_keys_are_refused() {
        let registry = Registry::build(&[]);
        let kind = registry.kind(&DEPLOYMENTS).expect("kind");
        let why = |containers: Value| {
            let mut applied = config(None, &[]);
            applied["spec"]["template"]["spec"]["containers"] = containers;
            let refused = apply(kind, &Value::Null, &applied, &writer("k"), true);
            refused.expect_err("refused").message
        };
        assert!(why(json!([{"image": "a"}])).ends_with(
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)"
        ));
        assert!(why(json!([{"name": "a"}, {"name": "a"}])).contains("duplicate entries for key"));
        let ports = json!([{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]}]);
        let mut applied = config(None, &[]);
        applied["spec"]["template"]["spec"]["containers"] = ports;
        assert!(apply(kind, &Value::Null, &applied, &writer("k"), true).is_ok());
    }

    #[test]
    fn another_managers_value_is_a_conflict_unless_forced() {
        let registry = Registry::build(&[]);
        let kind = registry.kind(&DEPLOYMENTS).expect("kind");
        let base = apply(
            kind,
            &Value::Null,
            &config(Some(2), &[("a", "a:1")]),
            &writer("k"),
            false,
        )
        .expect("first");
        let mut scaled = base.clone();
        scaled["spec"]["replicas"] = 5.into();
        record_update(kind, &base, &mut scaled, &writer("scaler"));
        let again = config(Some(2), &[("a", "a:1")]);
        let e = apply(kind, &scaled, &again, &writer("k"), false).expect_err("conflict");
        assert_eq!(e.code, 409);
        assert_eq!(
            e.message,
            "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
        );
        let forced = apply(kind, &scaled, &again, &writer("k"), true).expect("forced");
        assert_eq!(forced["spec"]["replicas"], 2);
        let managers: Vec<&str> = forced["metadata"]["managedFields"]
            .as_array()
            .expect("entries")
            .iter()
            .filter_map(|e| e["manager"].as_str())
            .collect();
        assert_eq!(managers, ["k"]);
        // The same value is shared, not fought over.
        let same = apply(
            kind,
            &scaled,
            &config(Some(5), &[("a", "a:1")]),
            &writer("k2"),
            false,
        );
        assert!(same.is_ok());
    }
}
