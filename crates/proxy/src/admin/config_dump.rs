//! `/config_dump` filtered: one resource list, a name pattern, a field mask.

use regex_automata::meta::Regex;
use serde_json::{Value, json};

use super::query::Query;

/// The answer to a query over the whole `configs` list; an error is the text of a 400 or 404.
pub fn filtered(configs: Value, query: &Query) -> Result<Value, (u16, String)> {
    let mut configs = match configs {
        Value::Array(list) => list,
        other => vec![other],
    };
    if let Some(pattern) = query.get("name_regex") {
        let regex = Regex::new(pattern).map_err(|error| {
            (
                400,
                format!("name_regex is no regular expression: {error}\n"),
            )
        })?;
        configs
            .iter_mut()
            .for_each(|section| keep_named(section, &regex));
    }
    let Some(resource) = query.get("resource") else {
        let mut value = json!({ "configs": configs });
        if let Some(mask) = query.get("mask") {
            // Without a resource the mask is about the sections' own fields.
            let list = value["configs"].as_array_mut().into_iter().flatten();
            list.for_each(|section| apply_mask(section, mask));
        }
        return Ok(value);
    };
    let found = configs.iter().find_map(|section| section.get(resource));
    let mut items = match found {
        Some(Value::Array(list)) => list.clone(),
        Some(one) => vec![one.clone()],
        None if known(resource) => Vec::new(),
        None => return Err((404, format!("{resource} not found in config dump\n"))),
    };
    if let Some(mask) = query.get("mask") {
        items.iter_mut().for_each(|item| apply_mask(item, mask));
    }
    Ok(json!({ "configs": items }))
}

/// Resource lists that may be empty, and then are left out of a dump.
fn known(resource: &str) -> bool {
    [
        "bootstrap",
        "static_clusters",
        "dynamic_active_clusters",
        "dynamic_warming_clusters",
        "static_listeners",
        "dynamic_listeners",
        "static_route_configs",
        "dynamic_route_configs",
        "static_secrets",
        "dynamic_active_secrets",
        "dynamic_warming_secrets",
        "static_endpoint_configs",
        "dynamic_endpoint_configs",
    ]
    .contains(&resource)
}

/// Drops the entries of a section's lists whose resource's name does not match.
fn keep_named(section: &mut Value, regex: &Regex) {
    let Some(fields) = section.as_object_mut() else {
        return;
    };
    for list in fields.values_mut().filter_map(Value::as_array_mut) {
        list.retain(|entry| name_of(entry).is_none_or(|name| regex.is_match(name)));
    }
}

fn name_of(entry: &Value) -> Option<&str> {
    let paths = [
        "/name",
        "/cluster/name",
        "/listener/name",
        "/route_config/name",
        "/endpoint_config/cluster_name",
    ];
    paths.iter().find_map(|path| entry.pointer(path)?.as_str())
}

/// Keeps the fields that a comma-separated mask of dotted paths names.
fn apply_mask(value: &mut Value, mask: &str) {
    let mut kept = json!({});
    if let Some(kind) = value.get("@type") {
        kept["@type"] = kind.clone();
    }
    for path in mask.split(',') {
        let parts: Vec<&str> = path.split('.').collect();
        if let Some(found) = parts.iter().try_fold(&*value, |v, part| v.get(part)) {
            let found = found.clone();
            let mut place = &mut kept;
            for part in &parts {
                place = &mut place[*part];
            }
            *place = found;
        }
    }
    *value = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump() -> Value {
        json!([{"@type": "x.ClustersConfigDump", "version_info": "1", "dynamic_active_clusters": [
            {"cluster": {"name": "a", "type": "EDS"}}, {"cluster": {"name": "b"}}]}])
    }

    fn ask(query: &str) -> Result<Value, (u16, String)> {
        filtered(dump(), &Query::parse(query))
    }

    #[test]
    fn a_resource_a_name_and_a_mask_narrow_the_dump() {
        assert_eq!(ask(""), Ok(json!({"configs": dump()})));
        let list = ask("resource=dynamic_active_clusters&name_regex=^a$").expect("a list");
        assert_eq!(
            list,
            json!({"configs": [{"cluster": {"name": "a", "type": "EDS"}}]})
        );
        let masked = ask("resource=dynamic_active_clusters&mask=cluster.name").expect("a list");
        assert_eq!(masked["configs"][0], json!({"cluster": {"name": "a"}}));
        assert_eq!(ask("resource=static_listeners"), Ok(json!({"configs": []})));
        assert_eq!(ask("resource=nonsense").map_err(|e| e.0), Err(404));
        assert_eq!(ask("name_regex=(").map_err(|e| e.0), Err(400));
    }
}
