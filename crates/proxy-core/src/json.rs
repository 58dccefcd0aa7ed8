//! JSON from outside as a [`Value`], read strictly: a name that stands twice in an object, text
//! after the value, or nesting deeper than serde_json's 128 levels is an error, so that no two
//! readers of one text see different things.
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::config::{Name, Value};

/// Reads a whole text.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(text).map(|strict| strict.0)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map: BTreeMap<Name, Value> = BTreeMap::new();
        while let Some((name, Strict(value))) = fields.next_entry::<String, Strict>()? {
            if map.insert(name.as_str().into(), value).is_some() {
                return Err(A::Error::custom(format!("{name:?} stands twice")));
            }
        }
        Ok(Value::Struct(map.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_in_every_way() {
        let read = |text: &str| parse(text.as_bytes());
        let value = read(r#" {"a":[1,-2.5,true,null,"x"],"b":{}} "#).unwrap();
        let list = value.path(["a"]).unwrap();
        let want = [
            Value::Number(1.0),
            Value::Number(-2.5),
            Value::Bool(true),
            Value::Null,
            Value::String("x".into()),
        ];
        assert_eq!(*list, Value::List(want.to_vec()));
        for bad in [
            "",
            "{",
            "{} x",
            r#"{"a":1,"a":1}"#,
            "nul",
            "[1,]",
            "\"\u{1}\"",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(read(&deep(100)).is_ok());
        assert!(read(&deep(1000)).is_err(), "no stack is spent on depth");
    }
}
