//! Opaque metadata (`filter_metadata`) as a small value tree, and path look-up in it.
use std::sync::{Arc, LazyLock};

use super::{Fields, Name};

/// A value of a protobuf `Struct`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// JSON null.
    #[default]
    Null,
    /// JSON true or false.
    Bool(bool),
    /// JSON number.
    Number(f64),
    /// JSON string.
    String(Name),
    /// JSON array.
    List(Vec<Value>),
    /// JSON object, keys sorted.
    Struct(Fields),
}

impl Value {
    /// The string, where this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    /// Follows object keys.
    #[must_use]
    pub fn path<S: AsRef<str>>(&self, keys: impl IntoIterator<Item = S>) -> Option<&Value> {
        let mut value = self;
        for key in keys {
            match value {
                Self::Struct(map) => value = map.get(key.as_ref())?,
                _ => return None,
            }
        }
        Some(value)
    }

    /// Whether every key of `want` is here with an equal value (transport socket match).
    #[must_use]
    pub fn covers(&self, want: &Value) -> bool {
        match (self, want) {
            (Self::Struct(have), Self::Struct(want)) => want
                .iter()
                .all(|(k, v)| have.get(k).is_some_and(|h| h == v)),
            (have, want) => have == want,
        }
    }
}

/// Metadata by filter namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// `filter_metadata`: namespace to struct.
    pub filter: Arc<Fields>,
}

/// Nothing; all that is empty is this one.
impl Default for Metadata {
    fn default() -> Self {
        static NONE: LazyLock<Arc<Fields>> = LazyLock::new(Arc::default);
        Self {
            filter: NONE.clone(),
        }
    }
}

impl From<Fields> for Metadata {
    fn from(fields: Fields) -> Self {
        match fields.is_empty() {
            true => Self::default(),
            false => Self {
                filter: Arc::new(fields),
            },
        }
    }
}

impl Metadata {
    /// The struct of one namespace.
    #[must_use]
    pub fn get(&self, namespace: &str) -> Option<&Value> {
        self.filter.get(namespace)
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filter.is_empty()
    }
}
