//! Texts to values: JSON by a JSON reader, whatever its size; all else as YAML.
//! A key that stands twice is refused, and so is nesting past 128 levels.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Nodes and events that any text may have (the YAML reader's own defaults).
const NODES: usize = 250_000;
const EVENTS: usize = 1_000_000;

/// Reads a text. What begins with `{` is tried as JSON first: it may be a flow map of YAML too.
pub(crate) fn value(text: &str) -> Result<Value, String> {
    if !text.trim_start().starts_with('{') {
        return yaml(text);
    }
    match json(text) {
        Ok(value) => Ok(value),
        // What only YAML's syntax allows; the reader of what it seems to be
        // says what is wrong.
        Err(Problem::Syntax(problem)) => yaml(text).map_err(|_| problem),
        Err(Problem::Other(problem)) => Err(problem),
    }
}

/// YAML to a value. Only `true` and `false` are booleans, so that an id `n` stays text.
pub(crate) fn yaml(text: &str) -> Result<Value, String> {
    // A node takes at least two bytes, so that no text is too long for its own length; what aliases
    // add to that stays bounded by it.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_nodes: NODES.max(text.len()),
            max_events: EVENTS.max(text.len()),
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())
}

/// Why a text is no JSON.
enum Problem {
    Syntax(String),
    Other(String),
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        match error.is_syntax() && !text.contains("recursion limit") {
            true => Self::Syntax(text),
            false => Self::Other(text),
        }
    }
}

fn json(text: &str) -> Result<Value, Problem> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// A value whose maps name every key once.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = from.next_element_seed(Strict)? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            let value = from.next_value_seed(Strict)?;
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("`{key}` stands twice in one map")));
            }
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_of_any_size_and_yaml_are_read() {
        assert_eq!(
            value(" {\"a\": [1, -2, 1.5, null, true]}"),
            Ok(json!({"a": [1, -2, 1.5, null, true]}))
        );
        assert_eq!(value("{a: b}"), Ok(json!({"a": "b"})));
        assert_eq!(value("id: n"), Ok(json!({"id": "n"})));
        let list = vec!["{\"name\": \"some cluster\", \"number\": 1}"; 200_000].join(",");
        let large = value(&format!("{{\"clusters\": [{list}]}}"));
        assert_eq!(
            large.unwrap()["clusters"].as_array().unwrap().len(),
            200_000
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let problem = |text: &str| value(text).unwrap_err();
        let twice = problem("{\"a\": 1,\n \"a\": 2}");
        assert!(
            twice.contains("`a` stands twice") && twice.contains("line 2"),
            "{twice}"
        );
        let cut = problem("{\"a\": 1,\n\n \"b\": ]");
        assert!(cut.contains("line 3"), "{cut}");
        let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        assert!(problem(&deep).contains("recursion"), "{}", problem(&deep));
        assert!(problem("{} {}").contains("trailing"));
    }
}
