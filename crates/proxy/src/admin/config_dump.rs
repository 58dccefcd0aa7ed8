//! `/config_dump` filtered: one resource list, a name pattern, a field mask.

use lateen_proxy_core::regex::Regex;
use serde_json::{Value, json};

use super::query::Query;

/// The answer to a query over the whole `configs` list; an error is the text of a 400 or 404.
pub fn filtered(configs: Value, query: &Query) -> Result<Value, (u16, String)> {
    let mut configs = match configs {
        Value::Array(list) => list,
        other => vec![other],
    };
    if let Some(pattern) = query.get("name_regex") {
        // The whole name must match, as in Envoy.
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
            if let Some(list) = value["configs"].as_array_mut() {
                list.iter_mut()
                    .for_each(|section| apply_mask(section, mask));
                list.retain(|section| section.as_object().is_none_or(|s| s.len() > 1));
            }
        }
        return Ok(value);
    };
    let found = configs.iter().find_map(|section| section.get(resource));
    let mut items = match found {
        Some(Value::Array(list)) => list.clone(),
        Some(_) => {
            let text = format!(
                "{resource} is not a repeated field. Use ?mask={resource} to get only this field\n"
            );
            return Err((400, text));
        }
        None if entry_type(resource).is_some() => Vec::new(),
        None => return Err((404, format!("{resource} not found in config dump\n"))),
    };
    if let Some(mask) = query.get("mask") {
        items.iter_mut().for_each(|item| apply_mask(item, mask));
    }
    if let Some(name) = entry_type(resource) {
        items.iter_mut().for_each(|item| set_type(item, name));
    }
    Ok(json!({ "configs": items }))
}

/// The message type of a resource list's entries, in `envoy.admin.v3`. A list
/// that is empty is left out of a dump and known by this.
fn entry_type(resource: &str) -> Option<&'static str> {
    Some(match resource {
        "static_clusters" => "ClustersConfigDump.StaticCluster",
        "dynamic_active_clusters" | "dynamic_warming_clusters" => {
            "ClustersConfigDump.DynamicCluster"
        }
        "static_listeners" => "ListenersConfigDump.StaticListener",
        "dynamic_listeners" => "ListenersConfigDump.DynamicListener",
        "static_route_configs" => "RoutesConfigDump.StaticRouteConfig",
        "dynamic_route_configs" => "RoutesConfigDump.DynamicRouteConfig",
        "static_secrets" => "SecretsConfigDump.StaticSecret",
        "dynamic_active_secrets" | "dynamic_warming_secrets" => "SecretsConfigDump.DynamicSecret",
        "static_endpoint_configs" => "EndpointsConfigDump.StaticEndpointConfig",
        "dynamic_endpoint_configs" => "EndpointsConfigDump.DynamicEndpointConfig",
        _ => return None,
    })
}

/// Puts `@type` in front, where an entry stands alone.
fn set_type(item: &mut Value, name: &str) {
    if let Some(fields) = item.as_object_mut() {
        let url = format!("type.googleapis.com/envoy.admin.v3.{name}");
        let rest = std::mem::take(fields);
        fields.insert("@type".to_owned(), Value::String(url));
        fields.extend(rest);
    }
}

/// Drops the entries of a section's lists whose resource's name does not match.
fn keep_named(section: &mut Value, regex: &Regex) {
    let Some(fields) = section.as_object_mut() else {
        return;
    };
    for list in fields.values_mut().filter_map(Value::as_array_mut) {
        list.retain(|entry| name_of(entry).is_none_or(|name| regex.is_full_match(name.as_bytes())));
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
            {"cluster": {"name": "a", "type": "EDS"}}, {"cluster": {"name": "b"}}, {"cluster": {"name": "aa"}}]},
            {"@type": "x.BootstrapConfigDump", "bootstrap": {"node": {"id": "n"}}}])
    }

    fn ask(query: &str) -> Result<Value, (u16, String)> {
        filtered(dump(), &Query::parse(query))
    }

    #[test]
    fn a_resource_a_name_and_a_mask_narrow_the_dump() {
        assert_eq!(ask(""), Ok(json!({"configs": dump()})));
        let list = ask("resource=dynamic_active_clusters&name_regex=a").expect("a list");
        let kind = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster";
        let entry = json!({"@type": kind, "cluster": {"name": "a", "type": "EDS"}});
        assert_eq!(list, json!({ "configs": [entry] }), "not `aa`");
        let masked = ask("resource=dynamic_active_clusters&mask=cluster.name").expect("a list");
        let entry = json!({"@type": kind, "cluster": {"name": "a"}});
        assert_eq!(masked["configs"][0], entry);
        let section = json!({"@type": "x.BootstrapConfigDump", "bootstrap": {"node": {"id": "n"}}});
        assert_eq!(ask("mask=bootstrap"), Ok(json!({ "configs": [section] })));
        assert_eq!(ask("resource=bootstrap").map_err(|e| e.0), Err(400));
        assert_eq!(ask("resource=static_listeners"), Ok(json!({"configs": []})));
        assert_eq!(ask("resource=nonsense").map_err(|e| e.0), Err(404));
        assert_eq!(ask("name_regex=(").map_err(|e| e.0), Err(400));
    }
}
