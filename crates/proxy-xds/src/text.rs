//! Texts to values: JSON by a JSON reader, whatever its size; all else as YAML.
//! A key that stands twice is refused, and so is nesting past 128 levels.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
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
    let mut value =
        serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())?;
    if has_decimals(&value) {
        // It has been read once: what is wrong now would have been then.
        let again = serde_saphyr::with_deserializer_from_str(text, |reader| {
            Decimals(&mut value).deserialize(reader)
        });
        again.map_err(|e| e.to_string())?;
    }
    Ok(value)
}

/// Whether a number with a point or an exponent is in the value.
fn has_decimals(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(all) => all.iter().any(has_decimals),
        Value::Object(fields) => fields.values().any(has_decimals),
        _ => false,
    }
}

/// Puts the texts of such numbers in their place, from a second reading: Envoy's YAML knows whole
/// numbers only, so that a label `version: 1.10` is the text `1.10`. A field that wants a number
/// reads it from its text.
struct Decimals<'a>(&'a mut Value);

impl<'de> DeserializeSeed<'de> for Decimals<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.0 {
            Value::Number(number) if number.is_f64() => {
                *self.0 = String::deserialize(from)?.into();
                Ok(())
            }
            Value::Array(_) => from.deserialize_seq(self),
            Value::Object(_) => from.deserialize_map(self),
            _ => IgnoredAny::deserialize(from).map(|_| ()),
        }
    }
}

impl<'de> Visitor<'de> for Decimals<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what it was before")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        for value in self.0.as_array_mut().into_iter().flatten() {
            from.next_element_seed(Decimals(value))?;
        }
        from.next_element::<IgnoredAny>()?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        while let Some(key) = from.next_key::<String>()? {
            match self.0.get_mut(key) {
                Some(value) => from.next_value_seed(Decimals(value))?,
                None => from.next_value::<IgnoredAny>().map(|_| ())?,
            }
        }
        Ok(())
    }
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
    fn decimals_of_yaml_are_their_texts() {
        let text = "a: 1.10\nb: [1, 1.0, {c: 1e3, d: x}]\ne: &n {f: 0.50}\ng: *n\nh: 7\ni: \"1.0\"";
        assert_eq!(
            value(text),
            Ok(json!({
                "a": "1.10", "b": [1, "1.0", {"c": "1e3", "d": "x"}], "e": {"f": "0.50"},
                "g": {"f": "0.50"}, "h": 7, "i": "1.0"
            }))
        );
        assert_eq!(
            value("{\"a\": 1.10}"),
            Ok(json!({"a": 1.1})),
            "JSON has numbers"
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
