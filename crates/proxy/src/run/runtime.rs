//! The runtime's layers as `/runtime` shows them: each value by its flat key, layer for layer.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The page, from the bootstrap as the dump shows it.
pub(super) fn page(bootstrap: &Value) -> Value {
    let none = Vec::new();
    let layers = bootstrap["layered_runtime"]["layers"].as_array();
    let layers = layers.unwrap_or(&none);
    let mut entries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (at, layer) in layers.iter().enumerate() {
        let mut put = |key: String, value: String| {
            let all = entries
                .entry(key)
                .or_insert_with(|| vec![String::new(); layers.len()]);
            all[at] = value;
        };
        flatten("", &layer["static_layer"], &mut put);
    }
    let entries = entries.into_iter().map(|(key, values)| {
        let last = values.iter().rev().find(|v| !v.is_empty());
        let entry =
            json!({ "final_value": last.cloned().unwrap_or_default(), "layer_values": values });
        (key, entry)
    });
    let entries: serde_json::Map<_, _> = entries.collect();
    let names: Vec<&Value> = layers.iter().map(|layer| &layer["name"]).collect();
    json!({ "entries": entries, "layers": names })
}

fn flatten(prefix: &str, value: &Value, put: &mut impl FnMut(String, String)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = match prefix.is_empty() {
                    true => key.clone(),
                    false => format!("{prefix}.{key}"),
                };
                flatten(&key, value, put);
            }
        }
        Value::Null => {}
        Value::String(text) => put(prefix.to_owned(), text.clone()),
        // Protobuf's numbers are doubles: whole ones are shown as such.
        Value::Number(n) => {
            let text = match n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15) {
                Some(whole) => format!("{whole:.0}"),
                None => n.to_string(),
            };
            put(prefix.to_owned(), text);
        }
        other => put(prefix.to_owned(), other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win() {
        let bootstrap = json!({ "layered_runtime": { "layers": [
            { "name": "a", "static_layer": { "x": { "y": 5.0 }, "t": "text", "f": 0.5 } },
            { "name": "b", "static_layer": { "t": true } },
        ] } });
        let want = json!({ "layers": ["a", "b"], "entries": {
            "x.y": { "final_value": "5", "layer_values": ["5", ""] },
            "t": { "final_value": "true", "layer_values": ["text", "true"] },
            "f": { "final_value": "0.5", "layer_values": ["0.5", ""] },
        } });
        assert_eq!(page(&bootstrap), want);
        assert_eq!(page(&json!({})), json!({ "entries": {}, "layers": [] }));
    }
}
