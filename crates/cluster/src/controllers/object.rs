//! Reading Kubernetes objects as JSON: metadata, labels, selectors, owners, conditions, times.
//!
//! Controllers keep objects as JSON so that fields they do not know survive. Every reader here is
//! total: an absent or mistyped field reads as empty, zero or `None`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::api::selector::{from_label_selector, matches_labels};

/// A string at a JSON pointer, or `""`.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// An integer at a JSON pointer.
pub fn int(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// A boolean at a JSON pointer, `false` when absent.
pub fn flag(object: &Value, pointer: &str) -> bool {
    object
        .pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

/// A list at a JSON pointer, empty when absent.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`, `""` for cluster objects.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// One label, if present.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// One annotation, if present.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(key)?
        .as_str()
}

/// Whether the object is being deleted.
pub fn deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// A time at a JSON pointer.
pub fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

/// A time in the form of API objects: RFC 3339, whole seconds, UTC.
pub fn format_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A map at a pointer, as an object; `None` when absent.
pub fn map<'a>(object: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.pointer(pointer).and_then(Value::as_object)
}

/// Writes one annotation, making the maps on the way.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    set_string(object, "annotations", key, value);
}

/// Writes one label, making the maps on the way.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    set_string(object, "labels", key, value);
}

fn set_string(object: &mut Value, field: &str, key: &str, value: &str) {
    let metadata = ensure_map(object, "metadata");
    let strings = metadata.entry(field).or_insert_with(|| json!({}));
    if !strings.is_object() {
        *strings = json!({});
    }
    if let Some(strings) = strings.as_object_mut() {
        strings.insert(key.to_owned(), json!(value));
    }
}

/// The map in `object[field]`, made when absent or of another type.
pub fn ensure_map<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let slot = &mut object[field];
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("the slot was just made an object"),
    }
}

/// The controlling owner: the reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences")
        .iter()
        .find(|owner| flag(owner, "/controller"))
}

/// The controlling owner's uid, or `""`.
pub fn controller_uid(object: &Value) -> &str {
    controller_of(object).map_or("", |owner| text(owner, "/uid"))
}

/// The reference that makes `owner` the controller of a dependent.
pub fn owner_reference(owner: &Value, api_version: &str, kind: &str) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Whether a `LabelSelector` (matchLabels, matchExpressions) selects the object.
///
/// An empty selector selects everything; `None` or null selects nothing.
pub fn selector_matches(selector: Option<&Value>, object: &Value) -> bool {
    let Some(selector) = selector.filter(|selector| selector.is_object()) else {
        return false;
    };
    matches_labels(
        &from_label_selector(selector),
        &object["metadata"]["labels"],
    )
}

/// One `{key, operator, values}` requirement against the value of its key.
///
/// As in node affinity: `Gt` and `Lt` compare integers.
pub fn expression_matches(expression: &Value, value: Option<&str>) -> bool {
    let values = list(expression, "/values");
    let contains = |value: &str| values.iter().any(|v| v.as_str() == Some(value));
    let bound = || {
        values
            .first()
            .and_then(Value::as_str)
            .and_then(|v| v.parse::<i64>().ok())
    };
    let number = || value.and_then(|v| v.parse::<i64>().ok());
    match text(expression, "/operator") {
        "In" => value.is_some_and(contains),
        "NotIn" => !value.is_some_and(contains),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number()
            .zip(bound())
            .is_some_and(|(value, bound)| value > bound),
        "Lt" => number()
            .zip(bound())
            .is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// Whether a plain equality selector (as in a Service) selects the object; empty selects nothing.
pub fn plain_selector_matches(selector: Option<&Map<String, Value>>, object: &Value) -> bool {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
        return false;
    };
    selector
        .iter()
        .all(|(key, value)| label(object, key) == value.as_str())
}

/// Whether a workload's `spec.selector` selects the object; replication controllers have the plain
/// form.
pub fn owner_selects(owner: &Value, object: &Value) -> bool {
    if text(owner, "/kind") == "ReplicationController" {
        return plain_selector_matches(map(owner, "/spec/selector"), object);
    }
    selector_matches(owner.pointer("/spec/selector"), object)
}

/// The condition of a type in `status.conditions`.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions")
        .iter()
        .find(|c| text(c, "/type") == kind)
}

/// Whether the condition of a type is `True`.
pub fn condition_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| text(c, "/status") == "True")
}

/// Whether a pod's phase says that it ended.
pub fn pod_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a pod counts for its controller: neither ended nor being deleted.
pub fn pod_active(pod: &Value) -> bool {
    !pod_ended(pod) && !deleting(pod)
}

/// Since when a pod is Ready; `None` when it is not.
pub fn pod_ready_since(pod: &Value) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| text(c, "/status") == "True")?;
    Some(time(ready, "/lastTransitionTime").unwrap_or(Timestamp::UNIX_EPOCH))
}

/// How long until a ready pod counts as available; `Some(0)` = it does, `None` = it is not ready.
pub fn pod_available_in(pod: &Value, min_ready_seconds: i64, now: Timestamp) -> Option<i64> {
    let since = pod_ready_since(pod)?;
    if min_ready_seconds <= 0 {
        return Some(0);
    }
    Some((since.as_second() + min_ready_seconds - now.as_second()).max(0))
}

/// The resource version as a number for comparisons of age only; 0 when absent.
pub fn revision_number(object: &Value, key: &str) -> i64 {
    annotation(object, key)
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// A copy without nulls and empty maps or lists, so that two spellings of one value compare equal.
pub fn pruned(value: &Value) -> Value {
    fn is_empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        }
    }
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k.clone(), pruned(v)))
                .filter(|(_, v)| !is_empty(v))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(pruned).collect()),
        other => other.clone(),
    }
}

/// JSON text with sorted keys: equal values give equal text whatever the order of their fields.
pub fn canonical_text(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            out.push('{');
            for key in keys {
                out.push_str(key);
                out.push(':');
                canonical_text(&map[key], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for item in list {
                canonical_text(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// The alphabet of generated names: no vowels and no look-alike digits.
const NAME_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A stable short name of a value (FNV-1a, 10 letters of the name alphabet); `salt` separates
/// values whose names met.
pub fn short_hash(value: &Value, salt: u64) -> String {
    let mut canonical = String::new();
    canonical_text(&pruned(value), &mut canonical);
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in canonical
        .bytes()
        .chain(salt.to_le_bytes().into_iter().filter(|_| salt > 0))
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let mut name = String::with_capacity(10);
    for _ in 0..10 {
        name.push(char::from(NAME_ALPHABET[(hash % 27) as usize]));
        hash /= 27;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_follow_labels_and_expressions() {
        let pod = json!({"metadata": {"labels": {"app": "a", "n": "5"}}});
        let yes = |s: Value| selector_matches(Some(&s), &pod);
        assert!(yes(json!({})));
        assert!(yes(json!({"matchLabels": {"app": "a"}})));
        assert!(!yes(json!({"matchLabels": {"app": "b"}})));
        assert!(yes(
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "c"]}]})
        ));
        assert!(yes(
            json!({"matchExpressions": [{"key": "zz", "operator": "NotIn", "values": ["a"]}]})
        ));
        assert!(!yes(
            json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})
        ));
        assert!(expression_matches(
            &json!({"operator": "Gt", "values": ["4"]}),
            Some("5")
        ));
        assert!(!expression_matches(
            &json!({"operator": "Lt", "values": ["4"]}),
            Some("x")
        ));
        assert!(!selector_matches(None, &pod));
        assert!(!plain_selector_matches(Some(&Map::new()), &pod));
    }

    #[test]
    fn hashes_ignore_field_order_and_empty_fields() {
        let a = json!({"x": 1, "y": {"b": 2, "a": [1]}, "z": null, "e": {}});
        let b = json!({"y": {"a": [1], "b": 2}, "x": 1});
        assert_eq!(short_hash(&a, 0), short_hash(&b, 0));
        assert_ne!(short_hash(&a, 0), short_hash(&b, 1));
        assert_ne!(short_hash(&a, 0), short_hash(&json!({"x": 2}), 0));
        assert_eq!(short_hash(&a, 0).len(), 10);
    }

    #[test]
    fn readers_are_total() {
        let odd = json!({"metadata": 3, "status": {"conditions": "no"}});
        assert_eq!((name(&odd), uid(&odd), controller_uid(&odd)), ("", "", ""));
        assert!(!deleting(&odd) && condition(&odd, "Ready").is_none() && pod_active(&odd));
        let mut odd = odd;
        set_label(&mut odd, "k", "v");
        assert_eq!(label(&odd, "k"), Some("v"));
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let pod = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let now: Timestamp = "2026-01-01T00:00:04Z".parse().expect("a time");
        assert_eq!(pod_available_in(&pod, 0, now), Some(0));
        assert_eq!(pod_available_in(&pod, 10, now), Some(6));
        assert_eq!(pod_available_in(&json!({}), 0, now), None);
        assert_eq!(format_time(now), "2026-01-01T00:00:04Z");
    }
}
