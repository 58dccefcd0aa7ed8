//! Protobuf's JSON form: wire bytes to JSON and back for every message of the schema table,
//! without reflection and without a descriptor pool.
//!
//! The table (`schema/table.bin`) is read in place from the program's read-only data, so that
//! nothing is built at run time and only the pages that are looked at cost memory.

mod decode;
mod encode;
mod table;
mod well_known;
mod wire;

use std::fmt;

use prost::{Message, Name};
use serde_json::Value;

/// How field names are written. Both forms are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// As in the protos: `route_config`. Envoy's own `config_dump` prints these.
    #[default]
    Snake,
    /// As protobuf's JSON mapping says: `routeConfig`. `istioctl -o json` prints these.
    Camel,
}

/// How wire bytes become JSON.
#[derive(Debug, Clone, Copy)]
pub struct PrintOptions {
    /// Form of field names.
    pub names: Names,
    /// Whether an `Any` of an unknown type, or with bytes that are not of its type, is an
    /// error. Otherwise it is printed as `@type` and base64 `value`.
    pub strict_any: bool,
    /// How deep messages may nest, `Any` included.
    pub max_depth: usize,
    /// The most wire bytes taken.
    pub max_bytes: usize,
}

impl Default for PrintOptions {
    fn default() -> Self {
        Self {
            names: Names::Snake,
            strict_any: false,
            max_depth: 100,
            max_bytes: 64 << 20,
        }
    }
}

impl PrintOptions {
    /// The defaults with camel-case names.
    #[must_use]
    pub fn camel() -> Self {
        Self {
            names: Names::Camel,
            ..Self::default()
        }
    }
}

/// How JSON becomes wire bytes.
#[derive(Debug, Clone, Copy)]
pub struct ParseOptions {
    /// Whether unknown fields, unknown enum names and `Any`s of unknown types are passed over
    /// (and listed in [`Parsed::unknown`]) instead of refused.
    pub allow_unknown: bool,
    /// Whether all is taken that Envoy takes from a file: enum names in any case, booleans as words
    /// (`"true"`, `yes`, `on`), one element in place of a list, `{ seconds: 1 }` for a duration and
    /// `{ value: 1 }` for what a wrapper holds.
    pub loose: bool,
    /// How deep messages may nest, `Any` included.
    pub max_depth: usize,
    /// The most wire bytes produced.
    pub max_bytes: usize,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            allow_unknown: false,
            loose: false,
            max_depth: 100,
            max_bytes: 64 << 20,
        }
    }
}

/// What [`to_wire_with`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The message in wire form, fields by number.
    pub wire: Vec<u8>,
    /// Paths that were passed over; empty unless [`ParseOptions::allow_unknown`] is set.
    pub unknown: Vec<String>,
}

/// Why a translation failed, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// The place, such as `static_resources.listeners[0].address`; empty for the root.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

impl std::error::Error for JsonError {}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}", self.problem)
        } else {
            write!(f, "{}: {}", self.path, self.problem)
        }
    }
}

/// What is wrong with a JSON value or with wire bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No such message in the table.
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    /// The message has no such field.
    #[error("unknown field of {0}")]
    UnknownField(String),
    /// The enum has no such value.
    #[error("unknown value {value:?} of enum {name}")]
    UnknownEnumValue {
        /// Full name of the enum.
        name: String,
        /// What was written.
        value: String,
    },
    /// A value of another JSON type.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What the field takes.
        expected: &'static str,
        /// What is there, shortened.
        found: String,
    },
    /// A field given under both of its names, or a map key given twice.
    #[error("given twice")]
    Duplicate,
    /// Two members of one oneof.
    #[error("only one of {0} and {1} may be set")]
    Oneof(String, String),
    /// An `Any` with content and no `@type`.
    #[error("missing @type")]
    MissingType,
    /// Deeper than the limit.
    #[error("nested deeper than {0}")]
    TooDeep(usize),
    /// Larger than the limit.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// Bytes that are not a message.
    #[error("malformed wire data: {0}")]
    Wire(&'static str),
}

/// An error on its way out, with the path collected from the inside.
#[derive(Debug)]
struct Failure {
    problem: Problem,
    segments: Vec<String>,
}

type Outcome<T> = Result<T, Box<Failure>>;

fn fail<T>(problem: Problem) -> Outcome<T> {
    Err(Box::new(Failure {
        problem,
        segments: Vec::new(),
    }))
}

fn expected<T>(expected: &'static str, found: &Value) -> Outcome<T> {
    let mut found = found.to_string();
    if let Some((end, _)) = found.char_indices().nth(60) {
        found.truncate(end);
        found.push_str("...");
    }
    fail(Problem::Expected { expected, found })
}

/// Adds the name of the place that is being left.
trait At<T> {
    fn at_field(self, name: &str) -> Outcome<T>;
    fn at_index(self, index: usize) -> Outcome<T>;
    fn at_key(self, key: &str) -> Outcome<T>;
}

impl<T> At<T> for Outcome<T> {
    fn at_field(self, name: &str) -> Outcome<T> {
        self.map_err(|mut failure| {
            failure.segments.push(format!(".{name}"));
            failure
        })
    }

    fn at_index(self, index: usize) -> Outcome<T> {
        self.map_err(|mut failure| {
            failure.segments.push(format!("[{index}]"));
            failure
        })
    }

    fn at_key(self, key: &str) -> Outcome<T> {
        self.map_err(|mut failure| {
            failure.segments.push(format!("[{key:?}]"));
            failure
        })
    }
}

impl From<Box<Failure>> for JsonError {
    fn from(failure: Box<Failure>) -> Self {
        let path: String = failure.segments.iter().rev().map(String::as_str).collect();
        Self {
            path: path.strip_prefix('.').unwrap_or(&path).to_owned(),
            problem: failure.problem,
        }
    }
}

/// Whether the table knows a message of this full name.
#[must_use]
pub fn knows(message_name: &str) -> bool {
    table::find(message_name).is_some()
}

/// The full names of all messages of the table, in order.
pub fn message_names() -> impl Iterator<Item = String> {
    table::messages().map(table::Message::full_name)
}

/// Translates a message's JSON into wire bytes, unknown fields refused.
///
/// # Errors
/// See [`Problem`]; the path says where.
pub fn to_wire(message_name: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
    to_wire_with(message_name, value, &ParseOptions::default()).map(|parsed| parsed.wire)
}

/// Translates a message's JSON into wire bytes.
///
/// # Errors
/// See [`Problem`]; the path says where.
pub fn to_wire_with(
    message_name: &str,
    value: &Value,
    options: &ParseOptions,
) -> Result<Parsed, JsonError> {
    Ok(encode::encode(message_name, value, options)?)
}

/// Translates wire bytes into JSON with the proto's field names.
///
/// # Errors
/// See [`Problem`]; the path says where.
pub fn from_wire(message_name: &str, wire: &[u8]) -> Result<Value, JsonError> {
    from_wire_with(message_name, wire, &PrintOptions::default())
}

/// Translates wire bytes into JSON.
///
/// # Errors
/// See [`Problem`]; the path says where.
pub fn from_wire_with(
    message_name: &str,
    wire: &[u8],
    options: &PrintOptions,
) -> Result<Value, JsonError> {
    Ok(decode::decode(message_name, wire, options)?)
}

/// Reads a message from its JSON form, unknown fields refused.
///
/// # Errors
/// See [`Problem`]; the path says where.
pub fn to_message<T: Message + Name + Default>(value: &Value) -> Result<T, JsonError> {
    let wire = to_wire(&T::full_name(), value)?;
    T::decode(wire.as_slice()).map_err(|_| JsonError {
        path: String::new(),
        problem: Problem::Wire("the table and the message type disagree"),
    })
}

/// The JSON form of a message, with the proto's field names.
///
/// # Errors
/// The message is not in the table, or holds what JSON cannot (a `Duration` out of range).
pub fn from_message<T: Message + Name>(message: &T) -> Result<Value, JsonError> {
    from_wire(&T::full_name(), &message.encode_to_vec())
}

/// The JSON form of an `Any`: the message's fields and `@type`.
///
/// # Errors
/// See [`from_message`].
pub fn from_any(any: &crate::Any, options: &PrintOptions) -> Result<Value, JsonError> {
    from_wire_with("google.protobuf.Any", &any.encode_to_vec(), options)
}

/// An `Any` from its JSON form.
///
/// # Errors
/// See [`Problem`]; the path says where.
pub fn to_any(value: &Value, options: &ParseOptions) -> Result<crate::Any, JsonError> {
    let parsed = to_wire_with("google.protobuf.Any", value, options)?;
    crate::Any::decode(parsed.wire.as_slice()).map_err(|_| JsonError {
        path: String::new(),
        problem: Problem::Wire("not an Any"),
    })
}

#[cfg(test)]
mod tests;
