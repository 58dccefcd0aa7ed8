//! What the server owns in an object: set at creation, carried over at each change.

use serde_json::{Map, Value, json};

use super::error::{ApiError, Cause};
use super::kinds::Kind;
use super::meta;
use super::resource::{NAMESPACES, NODES, PODS};

/// Fields of `metadata` that an update takes from the present state.
const KEPT: [&str; 7] = [
    "uid",
    "namespace",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// Sets what the server owns in a new object.
pub(crate) fn prepare_create(kind: &Kind, object: &mut Value, applied: bool) {
    let m = meta::metadata_mut(object);
    for field in [
        "resourceVersion",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        m.shift_remove(field);
    }
    if !applied {
        m.shift_remove("managedFields");
    }
    m.insert("uid".to_owned(), meta::new_uid().into());
    m.insert("creationTimestamp".to_owned(), meta::now_text().into());
    if kind.generation {
        m.insert("generation".to_owned(), 1.into());
    }
    // The status of a new object is nobody's claim; nodes register with theirs.
    if kind.status && !kind.is(&NODES) {
        meta::remove(object, "status");
        if !kind.custom {
            object["status"] = json!({});
        }
    }
    if kind.is(&NAMESPACES) {
        object["spec"] = json!({"finalizers": ["kubernetes"]});
    }
}

pub(crate) fn check_identity(
    kind: &Kind,
    name: &str,
    current: &Value,
    next: &Value,
) -> Result<(), ApiError> {
    let given = meta::name(next);
    if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let uid = meta::text(next, "uid");
    if !uid.is_empty() && uid != meta::text(current, "uid") {
        return Err(ApiError::conflict(
            &kind.res,
            name,
            &format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                meta::text(current, "uid")
            ),
        ));
    }
    let rv = meta::text(next, "resourceVersion");
    if !rv.is_empty() && rv != meta::text(current, "resourceVersion") {
        return Err(ApiError::modified(&kind.res, name));
    }
    Ok(())
}

/// Takes from the present state what the request may not change.
pub(crate) fn carry_over(kind: &Kind, sub: Option<&str>, current: &Value, next: &mut Value) {
    match sub {
        Some("status") => {
            let status = meta::remove(next, "status");
            let managed = next["metadata"]["managedFields"].take();
            let mut whole = current.clone();
            match status {
                Some(s) => whole["status"] = s,
                None => drop(meta::remove(&mut whole, "status")),
            }
            if !managed.is_null() {
                whole["metadata"]["managedFields"] = managed;
            }
            *next = whole;
        }
        Some("ephemeralcontainers") => {
            let containers = next["spec"]["ephemeralContainers"].take();
            let managed = next["metadata"]["managedFields"].take();
            let mut whole = current.clone();
            match containers {
                Value::Null => drop(meta::remove(&mut whole["spec"], "ephemeralContainers")),
                list => whole["spec"]["ephemeralContainers"] = list,
            }
            if !managed.is_null() {
                whole["metadata"]["managedFields"] = managed;
            }
            *next = whole;
        }
        Some("finalize") => {
            let finalizers = next["spec"]["finalizers"].take();
            let mut whole = current.clone();
            whole["spec"]["finalizers"] = if finalizers.is_null() {
                json!([])
            } else {
                finalizers
            };
            *next = whole;
        }
        _ => {
            if kind.status {
                match current.get("status") {
                    Some(s) => next["status"] = s.clone(),
                    None => drop(meta::remove(next, "status")),
                }
            }
            if kind.is(&PODS) {
                // They are added by their subresource only.
                match current["spec"].get("ephemeralContainers") {
                    Some(list) => next["spec"]["ephemeralContainers"] = list.clone(),
                    None => drop(meta::remove(&mut next["spec"], "ephemeralContainers")),
                }
            }
            if kind.is(&NAMESPACES) {
                next["spec"] = current["spec"].clone();
            }
        }
    }
    for field in KEPT {
        restore(&current["metadata"], &mut next["metadata"], field);
    }
    next["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    if next["metadata"]["managedFields"].is_null() {
        if let Some(m) = current["metadata"].get("managedFields") {
            next["metadata"]["managedFields"] = m.clone();
        }
    } else if next["metadata"]["managedFields"] == json!([{}])
        || next["metadata"]["managedFields"] == json!([])
    {
        meta::remove(&mut next["metadata"], "managedFields");
    }
    // Order of the body decides nothing: keep the stored one, so that equal stays equal.
}

/// Checks and mends what mutating webhooks made of an object that was `before`: its identity may
/// not change, and what the server owns is as before. `old` is the stored state, on update.
///
/// # Errors
/// 422 for another name, or on update another uid; 400 for another namespace.
pub(crate) fn restore_owned(
    kind: &Kind,
    sub: Option<&str>,
    before: &Value,
    old: Option<&Value>,
    next: &mut Value,
) -> Result<(), ApiError> {
    let fixed: &[&str] = if old.is_some() {
        &["name", "uid"]
    } else {
        // A new object has no uid that a webhook could know to matter.
        &["name"]
    };
    let causes: Vec<Cause> = fixed
        .iter()
        .filter(|f| {
            let left_out = **f == "uid" && meta::text(next, f).is_empty();
            !left_out && next["metadata"][**f] != before["metadata"][**f]
        })
        .map(|f| {
            let value = &next["metadata"][*f];
            Cause::invalid(format!("metadata.{f}"), value, "field is immutable")
        })
        .collect();
    if !causes.is_empty() {
        let name = meta::name(before);
        return Err(ApiError::invalid(
            &kind.res.group,
            &kind.kind,
            name,
            &causes,
        ));
    }
    let (given, ns) = (meta::namespace(next), meta::namespace(before));
    if !given.is_empty() && given != ns {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given:?} and {ns:?})"
        )));
    }
    let owned = KEPT.iter().chain(&["resourceVersion", "managedFields"]);
    for field in owned {
        restore(&before["metadata"], &mut next["metadata"], field);
    }
    if let Some(old) = old {
        carry_over(kind, sub, old, next);
        restore(&before["metadata"], &mut next["metadata"], "managedFields");
    } else if kind.status && !kind.is(&NODES) {
        restore(before, next, "status");
    }
    Ok(())
}

/// Makes a field what it is in `from`, or absent.
fn restore(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(v) => to[field] = v.clone(),
        None => drop(meta::remove(to, field)),
    }
}

/// Whether a changed object has nothing that keeps it: it was waiting for its last finalizer.
pub(crate) fn is_gone(kind: &Kind, object: &Value) -> bool {
    if !meta::deleting(object) || meta::finalizers(object).next().is_some() {
        return false;
    }
    if kind.is(&NAMESPACES) {
        return object["spec"]["finalizers"]
            .as_array()
            .is_none_or(Vec::is_empty);
    }
    object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0)
        == 0
}

/// Whether anything but metadata and (for kinds that write it apart) status differs.
fn spec_differs(kind: &Kind, old: &Value, new: &Value) -> bool {
    let relevant = |o: &Value| -> Map<String, Value> {
        let mut m = o.as_object().cloned().unwrap_or_default();
        m.shift_remove("metadata");
        if kind.status || !kind.custom {
            m.shift_remove("status");
        }
        m
    };
    relevant(old) != relevant(new)
}

/// Counts a change of anything but metadata and status.
pub(crate) fn number_generation(kind: &Kind, current: &Value, next: &mut Value) {
    if !kind.generation {
        return;
    }
    let now = current["metadata"]["generation"].as_i64().unwrap_or(1);
    let changed = spec_differs(kind, current, next);
    next["metadata"]["generation"] = (now + i64::from(changed)).into();
}
