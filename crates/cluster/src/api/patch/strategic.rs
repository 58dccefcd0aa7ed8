//! Strategic merge patch: merge by the lists' keys, with its directives.

use serde_json::{Map, Value};

use super::keys::Type;

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Applies `patch` to an object of the definition `definition`.
///
/// # Errors
/// A text when the patch has the wrong shape for the object.
pub(super) fn apply(definition: &str, object: &mut Value, patch: &Value) -> Result<(), String> {
    if !patch.is_object() {
        return Err("the patch is not a JSON object".to_owned());
    }
    merge_map(Type::of_definition(definition), object, patch)
}

fn merge_map(of: Type<'_>, target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get(PATCH).and_then(Value::as_str) {
        Some("replace") => {
            *target = Value::Object(plain(patch));
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("unknown patch directive {other:?}")),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else {
        return Ok(());
    };
    if let Some(keep) = patch.get(RETAIN).and_then(Value::as_array) {
        map.retain(|k, _| keep.iter().any(|r| r == k.as_str()));
    }
    for (field, value) in patch {
        if field == PATCH || field == RETAIN || field.starts_with(ORDER) {
            continue;
        }
        if let Some(list) = field.strip_prefix(DELETE) {
            delete_scalars(map, list, value);
            continue;
        }
        if value.is_null() {
            map.shift_remove(field);
            continue;
        }
        let child = of.field(field);
        match value {
            Value::Object(sub) if sub.get(PATCH).and_then(Value::as_str) == Some("delete") => {
                map.shift_remove(field);
            }
            Value::Object(_) => {
                merge_map(
                    child,
                    map.entry(field.clone()).or_insert(Value::Null),
                    value,
                )?;
            }
            Value::Array(items) => {
                let slot = map.entry(field.clone()).or_insert(Value::Null);
                merge_list(of, field, child, slot, items)?;
            }
            scalar => {
                map.insert(field.clone(), scalar.clone());
            }
        }
    }
    for (field, order) in patch {
        if let Some(list) = field.strip_prefix(ORDER)
            && let (Some(order), Some(Value::Array(items))) = (order.as_array(), map.get_mut(list))
        {
            reorder(items, order, of.strategic_key(list));
        }
    }
    Ok(())
}

/// The patch's own fields, without directives, deeply.
fn plain(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(k, v)| !k.starts_with('$') && !v.is_null())
        .map(|(k, v)| (k.clone(), plain_value(v)))
        .collect()
}

fn plain_value(v: &Value) -> Value {
    match v {
        Value::Object(m) => Value::Object(plain(m)),
        Value::Array(a) => Value::Array(
            a.iter()
                .filter(|i| !is_directive(i))
                .map(plain_value)
                .collect(),
        ),
        other => other.clone(),
    }
}

fn is_directive(item: &Value) -> bool {
    item.get(PATCH).is_some()
}

fn delete_scalars(map: &mut Map<String, Value>, list: &str, gone: &Value) {
    let Some(gone) = gone.as_array() else { return };
    if let Some(items) = map.get_mut(list).and_then(Value::as_array_mut) {
        items.retain(|i| !gone.contains(i));
    }
}

fn merge_list(
    of: Type<'_>,
    field: &str,
    child: Type<'_>,
    slot: &mut Value,
    patch: &[Value],
) -> Result<(), String> {
    let replace = patch
        .iter()
        .any(|i| i.get(PATCH).and_then(Value::as_str) == Some("replace"));
    let key = of.strategic_key(field);
    if replace || (key.is_none() && !of.is_set(field)) {
        *slot = Value::Array(
            patch
                .iter()
                .filter(|i| !is_directive(i))
                .map(plain_value)
                .collect(),
        );
        return Ok(());
    }
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(items) = slot else {
        return Ok(());
    };
    let Some(key) = key else {
        for v in patch {
            if !items.contains(v) {
                items.push(v.clone());
            }
        }
        return Ok(());
    };
    for item in patch {
        let id = item
            .get(key)
            .ok_or_else(|| format!("map: {item} does not contain declared merge key: {key}"))?;
        let at = items.iter().position(|i| i.get(key) == Some(id));
        if item.get(PATCH).and_then(Value::as_str) == Some("delete") {
            items.retain(|i| i.get(key) != Some(id));
            continue;
        }
        match at {
            Some(i) => merge_map(child.items(), &mut items[i], item)?,
            None => {
                let mut fresh = Value::Object(Map::new());
                merge_map(child.items(), &mut fresh, item)?;
                items.push(fresh);
            }
        }
    }
    Ok(())
}

/// Puts the items named by `order` into that order; the others keep their place after the one
/// they followed.
fn reorder(items: &mut Vec<Value>, order: &[Value], key: Option<&str>) {
    let rank = |item: &Value| {
        order.iter().position(|o| match key {
            Some(k) => o.get(k).is_some() && o.get(k) == item.get(k),
            None => o == item,
        })
    };
    let mut named: Vec<(usize, Value)> = Vec::new();
    let mut loose: Vec<(Option<usize>, Value)> = Vec::new();
    let mut last = None;
    for item in items.drain(..) {
        match rank(&item) {
            Some(r) => {
                last = Some(r);
                named.push((r, item));
            }
            None => loose.push((last, item)),
        }
    }
    named.sort_by_key(|(r, _)| *r);
    let take_after = |after: Option<usize>, loose: &mut Vec<(Option<usize>, Value)>| {
        let (now, later): (Vec<_>, Vec<_>) = loose.drain(..).partition(|(a, _)| *a == after);
        *loose = later;
        now.into_iter().map(|(_, v)| v).collect::<Vec<_>>()
    };
    items.extend(take_after(None, &mut loose));
    for (r, item) in named {
        items.push(item);
        items.extend(take_after(Some(r), &mut loose));
    }
    items.extend(loose.into_iter().map(|(_, v)| v));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

    fn deployment() -> Value {
        json!({"metadata": {"labels": {"a": "1"}, "finalizers": ["x", "y"]},
            "spec": {"replicas": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"spec": {"containers": [
                {"name": "a", "image": "a:1", "args": ["x"],
                 "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]},
                {"name": "b", "image": "b:1"}]}}}})
    }

    fn patched(patch: Value) -> Value {
        let mut d = deployment();
        apply(DEPLOYMENT, &mut d, &patch).expect("applies");
        d
    }

    #[test]
    fn lists_merge_by_key_and_scalars_replace() {
        let d = patched(json!({"spec": {"template": {"spec": {"containers": [
            {"name": "b", "image": "b:2"},
            {"name": "a", "args": ["y"], "env": [{"name": "E", "value": "3"}]},
            {"name": "c", "image": "c"}]}}}}));
        let c = &d["spec"]["template"]["spec"]["containers"];
        assert_eq!(c[0]["image"], "a:1");
        assert_eq!(c[0]["args"], json!(["y"]));
        assert_eq!(c[0]["env"][0]["value"], "3");
        assert_eq!(c[0]["env"][1]["value"], "2");
        assert_eq!(c[1]["image"], "b:2");
        assert_eq!(c[2]["name"], "c");
    }

    #[test]
    fn directives_delete_replace_retain_and_order() {
        let d = patched(json!({
            "metadata": {"labels": null, "$deleteFromPrimitiveList/finalizers": ["x"]},
            "spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            "template": {"spec": {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a", "env": [{"$patch": "delete", "name": "E"}]}]}}}}));
        assert!(d["metadata"].get("labels").is_none());
        assert_eq!(d["metadata"]["finalizers"], json!(["y"]));
        assert_eq!(d["spec"]["strategy"], json!({"type": "Recreate"}));
        let c = &d["spec"]["template"]["spec"]["containers"];
        assert_eq!(c[0]["name"], "b");
        assert_eq!(c[1]["env"], json!([{"name": "F", "value": "2"}]));
        let d = patched(json!({"spec": {"template": {"spec": {"containers":
            [{"$patch": "replace"}, {"name": "z", "image": "z"}]}}}}));
        assert_eq!(
            d["spec"]["template"]["spec"]["containers"],
            json!([{"name": "z", "image": "z"}])
        );
    }

    #[test]
    fn a_list_item_without_its_key_is_refused() {
        let mut d = deployment();
        let bad = json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}});
        assert!(apply(DEPLOYMENT, &mut d, &bad).is_err());
    }
}
