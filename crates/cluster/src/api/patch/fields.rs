//! Sets of fields as `managedFields` writes them (`FieldsV1`): a trie of path elements.
//!
//! Elements: `f:name` a field, `k:{..}` the item of a list with these keys, `v:..` a member of a
//! set, `.` the item itself. An empty map is a leaf.

use serde_json::{Map, Value};

use super::keys::{ListKind, Type};
use crate::api::kinds::Kind;

/// A set of fields.
pub type Set = Map<String, Value>;

/// Fields of `metadata` that the server owns: nobody manages them.
const SERVER_OWNED: [&str; 10] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
];

/// The type of a kind's root for walking; custom resources use their schema.
fn root_type(kind: &Kind) -> Type<'_> {
    if let Some(d) = &kind.definition {
        return Type::of_definition(d);
    }
    match kind.storage_schema() {
        Some(v) => Type::of_custom(&v.schema),
        None => Type::of_definition(""),
    }
}

fn root_field<'a>(root: Type<'a>, field: &str) -> Type<'a> {
    if field == "metadata" {
        Type::object_meta()
    } else {
        root.field(field)
    }
}

/// The item's element for a list merged by keys.
fn item_element(keys: &[String], item: &Value) -> Option<String> {
    let mut id: Vec<(&str, Value)> = Vec::new();
    for k in keys {
        let v = item
            .get(k)
            .filter(|v| !v.is_null())
            .cloned()
            .or_else(|| Type::key_default(k))?;
        id.push((k, v));
    }
    id.sort_by(|a, b| a.0.cmp(b.0));
    let map: Map<String, Value> = id.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Some(format!("k:{}", Value::Object(map)))
}

fn leaf() -> Value {
    Value::Object(Map::new())
}

/// All fields of an object.
#[must_use]
pub fn of_object(kind: &Kind, object: &Value) -> Set {
    let root = root_type(kind);
    let mut out = Set::new();
    for (field, value) in object.as_object().into_iter().flatten() {
        match field.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let mut meta = of_value(Type::object_meta(), value);
                for f in SERVER_OWNED {
                    meta.shift_remove(&format!("f:{f}"));
                }
                if !meta.is_empty() {
                    out.insert("f:metadata".to_owned(), Value::Object(meta));
                }
            }
            _ => {
                let child = root.field(field);
                out.insert(
                    format!("f:{field}"),
                    Value::Object(of_field(root, field, child, value)),
                );
            }
        }
    }
    out
}

/// The set below one field; empty for a leaf.
fn of_field(owner: Type<'_>, field: &str, child: Type<'_>, value: &Value) -> Set {
    match value {
        Value::Object(_) if owner.atomic_map(field, &child) => Set::new(),
        Value::Object(_) => of_value(child, value),
        Value::Array(items) => match owner.apply_list(field, &child) {
            ListKind::Atomic => Set::new(),
            ListKind::Set => items.iter().map(|v| (format!("v:{v}"), leaf())).collect(),
            ListKind::Map(keys) => items
                .iter()
                .filter_map(|i| {
                    let mut below = of_value(child.items(), i);
                    below.insert(".".to_owned(), leaf());
                    Some((item_element(&keys, i)?, Value::Object(below)))
                })
                .collect(),
        },
        _ => Set::new(),
    }
}

fn of_value(of: Type<'_>, value: &Value) -> Set {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(f, v)| {
            let below = of_field(of, f, of.field(f), v);
            (format!("f:{f}"), Value::Object(below))
        })
        .collect()
}

/// Fields that differ between two states: `(set or changed in new, gone from new)`.
#[must_use]
pub fn difference_of(kind: &Kind, old: &Value, new: &Value) -> (Set, Set) {
    let (mut a, mut b) = (of_object(kind, old), of_object(kind, new));
    let gone = minus(&a, &b);
    // Of the fields in both, keep those whose values differ.
    retain_changed(&mut b, &mut a, old, new);
    (b, gone)
}

/// Drops from `new_set` the fields whose values are the same in both objects.
fn retain_changed(new_set: &mut Set, old_set: &mut Set, old: &Value, new: &Value) {
    new_set.retain(|element, below| {
        let (Some(n), o) = (child_of(new, element), child_of(old, element)) else {
            return element != ".";
        };
        let Value::Object(below) = below else {
            return false;
        };
        let Some(o) = o else { return true };
        if element == "." {
            return false;
        }
        if n == o {
            return false;
        }
        if below.is_empty() {
            return true;
        }
        let mut empty = Set::new();
        let old_below = match old_set.get_mut(element) {
            Some(Value::Object(m)) => m,
            _ => &mut empty,
        };
        retain_changed(below, old_below, o, n);
        !below.is_empty()
    });
}

/// The value an element leads to.
fn child_of<'a>(value: &'a Value, element: &str) -> Option<&'a Value> {
    if element == "." {
        return Some(value);
    }
    if let Some(f) = element.strip_prefix("f:") {
        return value.get(f);
    }
    if let Some(k) = element.strip_prefix("k:") {
        let keys: Map<String, Value> = serde_json::from_str(k).ok()?;
        return value.as_array()?.iter().find(|i| item_fits(i, &keys));
    }
    let v: Value = serde_json::from_str(element.strip_prefix("v:")?).ok()?;
    value.as_array()?.iter().find(|i| **i == v)
}

fn item_fits(item: &Value, keys: &Map<String, Value>) -> bool {
    keys.iter()
        .all(|(k, v)| match item.get(k).filter(|x| !x.is_null()) {
            Some(have) => have == v,
            None => Type::key_default(k).as_ref() == Some(v),
        })
}

/// Elements of `a` that are not in `b`.
#[must_use]
pub fn minus(a: &Set, b: &Set) -> Set {
    let mut out = Set::new();
    for (element, below) in a {
        let Some(other) = b.get(element) else {
            out.insert(element.clone(), below.clone());
            continue;
        };
        if let (Value::Object(x), Value::Object(y)) = (below, other) {
            // A leaf in `b` covers everything below.
            if x.is_empty() || y.is_empty() {
                continue;
            }
            let rest = minus(x, y);
            if !rest.is_empty() {
                out.insert(element.clone(), Value::Object(rest));
            }
        }
    }
    out
}

/// Everything in either.
pub fn add(a: &mut Set, b: &Set) {
    for (element, below) in b {
        match (a.get_mut(element), below) {
            (Some(Value::Object(x)), Value::Object(y)) => add(x, y),
            _ => {
                a.insert(element.clone(), below.clone());
            }
        }
    }
}

/// What both have.
#[must_use]
pub fn common(a: &Set, b: &Set) -> Set {
    let mut out = Set::new();
    for (element, below) in a {
        if let (Value::Object(x), Some(Value::Object(y))) = (below, b.get(element)) {
            if x.is_empty() || y.is_empty() {
                out.insert(
                    element.clone(),
                    if x.is_empty() { y.clone() } else { x.clone() }.into(),
                );
            } else {
                let both = common(x, y);
                if !both.is_empty() {
                    out.insert(element.clone(), Value::Object(both));
                }
            }
        }
    }
    out
}

/// The paths of the leaves at which two objects have different values.
#[must_use]
pub fn differing_leaves(set: &Set, a: &Value, b: &Value) -> Vec<(String, Set)> {
    let mut out = Vec::new();
    walk_leaves(
        set,
        Some(a),
        Some(b),
        String::new(),
        &mut Vec::new(),
        &mut out,
    );
    out
}

fn walk_leaves(
    set: &Set,
    a: Option<&Value>,
    b: Option<&Value>,
    path: String,
    trail: &mut Vec<String>,
    out: &mut Vec<(String, Set)>,
) {
    for (element, below) in set {
        if element == "." {
            continue;
        }
        let (x, y) = (
            a.and_then(|v| child_of(v, element)),
            b.and_then(|v| child_of(v, element)),
        );
        let at = format!("{path}{}", element_text(element));
        let Value::Object(below) = below else {
            continue;
        };
        trail.push(element.clone());
        let deeper = below.keys().any(|k| k != ".");
        if deeper {
            walk_leaves(below, x, y, at, trail, out);
        } else if x != y {
            out.push((at, trail_set(trail)));
        }
        trail.pop();
    }
}

fn trail_set(trail: &[String]) -> Set {
    let mut set = Set::new();
    for element in trail.iter().rev() {
        let mut outer = Set::new();
        outer.insert(element.clone(), Value::Object(set));
        set = outer;
    }
    set
}

fn element_text(element: &str) -> String {
    if let Some(f) = element.strip_prefix("f:") {
        return format!(".{f}");
    }
    if let Some(k) = element.strip_prefix("k:")
        && let Ok(keys) = serde_json::from_str::<Map<String, Value>>(k)
    {
        let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
        return format!("[{}]", parts.join(","));
    }
    format!("[={}]", element.trim_start_matches("v:"))
}

/// Removes the fields of a set from an object.
pub fn remove(value: &mut Value, set: &Set) {
    for (element, below) in set {
        let Value::Object(below) = below else {
            continue;
        };
        if let Some(f) = element.strip_prefix("f:") {
            let Some(map) = value.as_object_mut() else {
                continue;
            };
            if below.is_empty() {
                map.shift_remove(f);
                continue;
            }
            if let Some(child) = map.get_mut(f) {
                remove(child, below);
                let empty = match child {
                    Value::Object(m) => m.is_empty(),
                    Value::Array(a) => a.is_empty(),
                    _ => false,
                };
                if empty {
                    map.shift_remove(f);
                }
            }
        } else if let Some(items) = value.as_array_mut() {
            remove_item(items, element, below);
        }
    }
}

fn remove_item(items: &mut Vec<Value>, element: &str, below: &Set) {
    if let Some(v) = element.strip_prefix("v:") {
        let gone: Value = serde_json::from_str(v).unwrap_or_default();
        items.retain(|i| *i != gone);
        return;
    }
    let Some(keys) = element
        .strip_prefix("k:")
        .and_then(|k| serde_json::from_str::<Map<String, Value>>(k).ok())
    else {
        return;
    };
    if below.is_empty() || below.contains_key(".") {
        items.retain(|i| !item_fits(i, &keys));
    } else if let Some(item) = items.iter_mut().find(|i| item_fits(i, &keys)) {
        remove(item, below);
    }
}

/// What is wrong with the lists of an applied configuration: an item that does not say its key, or
/// two that say the same. Such items could not be owned, nor found again.
pub fn unkeyed(kind: &Kind, applied: &Value) -> Option<String> {
    let root = root_type(kind);
    let fields = applied.as_object().into_iter().flatten();
    fields
        .filter(|(field, _)| !matches!(field.as_str(), "apiVersion" | "kind"))
        .find_map(|(field, value)| {
            unkeyed_field(
                root,
                field,
                root_field(root, field),
                value,
                &format!(".{field}"),
            )
        })
}

fn unkeyed_field(
    owner: Type<'_>,
    field: &str,
    child: Type<'_>,
    value: &Value,
    path: &str,
) -> Option<String> {
    let below = |of: Type<'_>, map: &Map<String, Value>, path: &str| {
        map.iter()
            .find_map(|(f, v)| unkeyed_field(of, f, of.field(f), v, &format!("{path}.{f}")))
    };
    match value {
        Value::Object(map) if !owner.atomic_map(field, &child) => below(child, map, path),
        Value::Array(items) => {
            let ListKind::Map(keys) = owner.apply_list(field, &child) else {
                return None;
            };
            let mut seen = std::collections::BTreeSet::new();
            for (at, item) in items.iter().enumerate() {
                let Some(id) = item_element(&keys, item) else {
                    let missing = |k: &&String| {
                        item.get(*k).is_none_or(Value::is_null) && Type::key_default(k).is_none()
                    };
                    let key = keys.iter().find(missing).map_or("", String::as_str);
                    return Some(format!(
                        "{path}: element {at}: associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                    ));
                };
                if !seen.insert(id.clone()) {
                    return Some(format!("{path}: duplicate entries for key {}", &id[2..]));
                }
                let inner = item
                    .as_object()
                    .and_then(|map| below(child.items(), map, path));
                if inner.is_some() {
                    return inner;
                }
            }
            None
        }
        _ => None,
    }
}

/// Merges an applied configuration into the live object.
pub fn merge_applied(kind: &Kind, live: &mut Value, applied: &Value) {
    let root = root_type(kind);
    for (field, value) in applied.as_object().into_iter().flatten() {
        if field == "apiVersion" || field == "kind" {
            continue;
        }
        let child = root_field(root, field);
        merge_field(root, field, child, &mut live[field.as_str()], value);
    }
}

fn merge_field(owner: Type<'_>, field: &str, child: Type<'_>, live: &mut Value, applied: &Value) {
    match applied {
        Value::Object(map) if !owner.atomic_map(field, &child) => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            for (f, v) in map {
                merge_field(child, f, child.field(f), &mut live[f.as_str()], v);
            }
        }
        Value::Array(items) => match owner.apply_list(field, &child) {
            ListKind::Atomic => *live = applied.clone(),
            kind => {
                if !live.is_array() {
                    *live = Value::Array(Vec::new());
                }
                if let Value::Array(have) = live {
                    merge_items(&kind, child, have, items);
                }
            }
        },
        other => *live = other.clone(),
    }
}

fn merge_items(kind: &ListKind, child: Type<'_>, have: &mut Vec<Value>, items: &[Value]) {
    let ListKind::Map(keys) = kind else {
        for v in items {
            if !have.contains(v) {
                have.push(v.clone());
            }
        }
        return;
    };
    for item in items {
        let id = item_element(keys, item);
        let found = have
            .iter_mut()
            .find(|h| id.is_some() && item_element(keys, h) == id);
        match (found, item) {
            (Some(h), Value::Object(map)) => {
                for (f, v) in map {
                    let of = child.items();
                    merge_field(of, f, of.field(f), &mut h[f.as_str()], v);
                }
            }
            (Some(h), other) => *h = other.clone(),
            (None, item) => have.push(item.clone()),
        }
    }
}
