//! `proxy-status POD`: what the control plane would send a proxy against what the proxy holds, type
//! by type and resource by resource.

use std::collections::BTreeMap;

use serde_json::Value;

use super::proxy_config::dump::Dump;

/// The types compared, as istioctl writes them.
const TYPES: [&str; 3] = ["Clusters", "Listeners", "Routes"];

/// One line a type that agrees; of one that does not, a line for each resource that differs.
pub fn compare(control_plane: &Dump, proxy: &Dump) -> anyhow::Result<String> {
    let (wanted, held) = (control_plane.dynamic()?, proxy.dynamic()?);
    let mut out = String::new();
    for ((name, wanted), held) in TYPES.iter().zip(&wanted).zip(&held) {
        let lines = differences(wanted, held);
        let verdict = if lines.is_empty() {
            "Match"
        } else {
            "Don't Match"
        };
        let loaded = match proxy.routes_loaded() {
            Some(at) if *name == "Routes" => format!(" (RDS last loaded at {at})"),
            _ => String::new(),
        };
        out.push_str(&format!("{name} {verdict}{loaded}\n"));
        for line in lines {
            out.push_str(&format!("  {line}\n"));
        }
    }
    Ok(out)
}

fn differences(wanted: &BTreeMap<String, Value>, held: &BTreeMap<String, Value>) -> Vec<String> {
    let mut out = Vec::new();
    for (name, resource) in wanted {
        match held.get(name) {
            None => out.push(format!("- {name}: not in the proxy")),
            Some(other) => {
                if let Some((path, ours, theirs)) = first_difference("", resource, other) {
                    out.push(format!(
                        "~ {name}: {path}: {ours} from the control plane, {theirs} in the proxy"
                    ));
                }
            }
        }
    }
    for name in held.keys().filter(|name| !wanted.contains_key(*name)) {
        out.push(format!("+ {name}: only in the proxy"));
    }
    out
}

/// The first place where two values differ, with both sides, shortened.
fn first_difference(path: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: std::collections::BTreeSet<&String> =
                left.keys().chain(right.keys()).collect();
            keys.into_iter().find_map(|key| {
                let (l, r) = (left.get(key), right.get(key));
                let path = format!("{path}.{key}");
                first_difference(
                    path.trim_start_matches('.'),
                    l.unwrap_or(&Value::Null),
                    r.unwrap_or(&Value::Null),
                )
            })
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(i, (l, r))| first_difference(&format!("{path}[{i}]"), l, r)),
        _ if a == b => None,
        _ => Some((path.to_owned(), short(a), short(b))),
    }
}

fn short(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::Null => return "nothing".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dump(clusters: Value, loaded: &str) -> Dump {
        let dump = json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamic_active_clusters": clusters},
            {"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": [
                {"last_updated": loaded, "route_config": {"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "80"}},
            ]},
        ]});
        Dump::parse(dump.to_string().as_bytes()).expect("a dump")
    }

    fn cluster(name: &str, timeout: &str) -> Value {
        json!({"cluster": {
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": name, "connect_timeout": timeout,
        }})
    }

    #[test]
    fn agreement_is_a_line_a_type_and_a_difference_names_its_field() {
        let plane = dump(json!([cluster("a", "10s"), cluster("b", "1s")]), "");
        let same = compare(
            &plane,
            &dump(json!([cluster("b", "1s"), cluster("a", "10s")]), "T1"),
        );
        assert_eq!(
            same.expect("compared"),
            "Clusters Match\nListeners Match\nRoutes Match (RDS last loaded at T1)\n"
        );
        let other = dump(json!([cluster("a", "3s"), cluster("c", "1s")]), "T1");
        let text = compare(&plane, &other).expect("compared");
        assert!(text.starts_with("Clusters Don't Match\n"), "{text}");
        assert!(text.contains("~ a: "), "{text}");
        assert!(
            text.contains("\"10s\" from the control plane, \"3s\" in the proxy"),
            "{text}"
        );
        assert!(text.contains("- b: not in the proxy"), "{text}");
        assert!(text.contains("+ c: only in the proxy"), "{text}");
    }
}
