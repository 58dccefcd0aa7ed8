//! JSON to wire bytes.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::table::{self, Field, Kind, Message, Type};
use super::well_known::{mask_to_snake, parse_duration, parse_timestamp};
use super::wire::{FIXED32, FIXED64, LENGTH, VARINT, put_bytes, put_tag, put_varint};
use super::{At, Outcome, ParseOptions, Parsed, Problem, expected, fail};
use crate::type_url::message_name;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Bytes from either base64 alphabet, padded or not.
pub(super) fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .ok()
}

pub(super) fn encode(name: &str, value: &Value, options: &ParseOptions) -> Outcome<Parsed> {
    let Some(message) = table::find(name) else {
        return fail(Problem::UnknownType(name.to_owned()));
    };
    let mut encoder = Encoder {
        options,
        unknown: Vec::new(),
        trail: Vec::new(),
    };
    let mut wire = Vec::new();
    encoder.message(message, value, 0, &mut wire)?;
    Ok(Parsed {
        wire,
        unknown: encoder.unknown,
    })
}

struct Encoder<'a> {
    options: &'a ParseOptions,
    unknown: Vec<String>,
    /// The way to where the encoder is, kept only for [`Parsed::unknown`].
    trail: Vec<String>,
}

impl Encoder<'_> {
    fn note_unknown(&mut self, last: &str) {
        let mut path: String = self.trail.concat();
        if !last.is_empty() {
            path.push('.');
            path.push_str(last);
        }
        self.unknown
            .push(path.strip_prefix('.').unwrap_or(&path).to_owned());
    }

    fn inside<T>(
        &mut self,
        segment: impl FnOnce() -> String,
        work: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<T> {
        if !self.options.allow_unknown {
            return work(self);
        }
        self.trail.push(segment());
        let result = work(self);
        self.trail.pop();
        result
    }

    fn message(
        &mut self,
        message: Message,
        value: &Value,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Outcome<()> {
        if depth > self.options.max_depth {
            return fail(Problem::TooDeep(self.options.max_depth));
        }
        if self.options.loose
            && let Kind::Duration | Kind::Timestamp | Kind::Wrapper = message.kind()
            && let Value::Object(map) = value
        {
            return self.fields(message, map, None, depth, out);
        }
        match message.kind() {
            Kind::Plain | Kind::MapEntry => match value {
                Value::Object(map) => self.fields(message, map, None, depth, out)?,
                _ => return expected("an object", value),
            },
            Kind::Any => self.any(value, depth, out)?,
            Kind::Duration => text(value, "a duration such as \"1.5s\"", parse_duration)
                .map(|(seconds, nanos)| put_instant(out, seconds, nanos))?,
            Kind::Timestamp => text(value, "an RFC 3339 timestamp", parse_timestamp)
                .map(|(seconds, nanos)| put_instant(out, seconds, nanos))?,
            Kind::FieldMask => {
                let paths = text(value, "a field mask", |text| {
                    text.split(',')
                        .filter(|path| !path.is_empty())
                        .map(mask_to_snake)
                        .collect::<Option<Vec<_>>>()
                })?;
                for path in paths {
                    put_bytes(out, 1, path.as_bytes());
                }
            }
            Kind::Struct => match value {
                Value::Object(map) => self.structure(map, depth, out)?,
                _ => return expected("an object", value),
            },
            Kind::Value => self.dynamic(value, depth, out)?,
            Kind::ListValue => match value {
                Value::Array(list) => self.list(list, depth, out)?,
                _ => return expected("a list", value),
            },
            Kind::Wrapper => match message.field_numbered(1) {
                Some(field) => self.singular(field, value, false, depth, out)?,
                None => return fail(Problem::UnknownType(message.full_name())),
            },
        }
        if out.len() > self.options.max_bytes {
            return fail(Problem::TooLarge(self.options.max_bytes));
        }
        Ok(())
    }

    /// The fields of a plain message; `skip` is the key that an `Any` uses for itself.
    fn fields(
        &mut self,
        message: Message,
        map: &Map<String, Value>,
        skip: Option<&str>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Outcome<()> {
        let mut given: Vec<(Field, &str, &Value)> = Vec::with_capacity(map.len());
        for (key, value) in map {
            if Some(key.as_str()) == skip {
                continue;
            }
            let Some(field) = message.field_named(key) else {
                if self.options.allow_unknown {
                    self.note_unknown(key);
                    continue;
                }
                return fail(Problem::UnknownField(message.full_name())).at_field(key);
            };
            if value.is_null() && !takes_null(field) {
                continue;
            }
            if given.iter().any(|(other, ..)| *other == field) {
                return fail(Problem::Duplicate).at_field(key);
            }
            if let Some((_, other, _)) = given
                .iter()
                .find(|(other, ..)| field.oneof().is_some() && other.oneof() == field.oneof())
            {
                return fail(Problem::Oneof((*other).to_owned(), key.clone()));
            }
            given.push((field, key, value));
        }
        given.sort_by_key(|(field, ..)| field.number());
        for (field, key, value) in given {
            self.inside(
                || format!(".{key}"),
                |this| this.field(field, value, depth, out),
            )
            .at_field(key)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: Field,
        value: &Value,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Outcome<()> {
        if let Some((key, entry)) = field.map() {
            return match value {
                Value::Object(map) => self.map(field, key, entry, map, depth, out),
                _ => expected("an object", value),
            };
        }
        if !field.repeated() {
            return self.singular(field, value, field.presence(), depth, out);
        }
        let list = match value {
            Value::Array(list) => list.as_slice(),
            one if self.options.loose => std::slice::from_ref(one),
            _ => return expected("a list", value),
        };
        if matches!(field.r#type(), Type::String | Type::Bytes | Type::Message) {
            for (index, element) in list.iter().enumerate() {
                self.inside(
                    || format!("[{index}]"),
                    |this| this.singular(field, element, true, depth, out),
                )
                .at_index(index)?;
            }
            return Ok(());
        }
        let mut packed = Vec::new();
        for (index, element) in list.iter().enumerate() {
            self.inside(
                || format!("[{index}]"),
                |this| this.scalar(field, element, true, &mut packed).map(|_| ()),
            )
            .at_index(index)?;
        }
        if !packed.is_empty() {
            put_bytes(out, field.number(), &packed);
        }
        Ok(())
    }

    fn map(
        &mut self,
        field: Field,
        key: Field,
        entry: Field,
        map: &Map<String, Value>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Outcome<()> {
        for (name, value) in map {
            let mut bytes = Vec::new();
            let key_value = match key.r#type() {
                Type::Bool if name == "true" => Value::Bool(true),
                Type::Bool if name == "false" => Value::Bool(false),
                // Numbers are read from text by the scalar rules.
                _ => Value::String(name.clone()),
            };
            self.singular(key, &key_value, true, depth, &mut bytes)
                .at_key(name)?;
            self.inside(
                || format!("[{name:?}]"),
                |this| this.singular(entry, value, true, depth, &mut bytes),
            )
            .at_key(name)?;
            put_bytes(out, field.number(), &bytes);
        }
        Ok(())
    }

    /// One value with its tag. Without `explicit`, a default value is left out.
    fn singular(
        &mut self,
        field: Field,
        value: &Value,
        explicit: bool,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Outcome<()> {
        match field.r#type() {
            Type::Message => {
                let mut bytes = Vec::new();
                self.message(field.message(), value, depth + 1, &mut bytes)?;
                put_bytes(out, field.number(), &bytes);
            }
            Type::String => match value {
                Value::String(text) if explicit || !text.is_empty() => {
                    put_bytes(out, field.number(), text.as_bytes());
                }
                Value::String(_) => {}
                _ => return expected("a string", value),
            },
            Type::Bytes => {
                let bytes = text(value, "base64 text", base64_bytes)?;
                if explicit || !bytes.is_empty() {
                    put_bytes(out, field.number(), &bytes);
                }
            }
            _ => {
                let mut bytes = Vec::new();
                if let Some(wire_type) = self.scalar(field, value, explicit, &mut bytes)? {
                    put_tag(out, field.number(), wire_type);
                    out.extend(bytes);
                }
            }
        }
        Ok(())
    }

    /// A number, bool or enum without its tag; gives the wire type, or None where it was the
    /// default and may be left out.
    fn scalar(
        &mut self,
        field: Field,
        value: &Value,
        explicit: bool,
        out: &mut Vec<u8>,
    ) -> Outcome<Option<u32>> {
        let (bits, wire_type) = match field.r#type() {
            Type::Bool => match value {
                Value::Bool(flag) => (u64::from(*flag), VARINT),
                Value::String(word) if self.options.loose => match truth(word) {
                    Some(flag) => (u64::from(flag), VARINT),
                    None => return expected("true or false", value),
                },
                _ => return expected("true or false", value),
            },
            Type::Enum => match self.enumeration(field, value)? {
                Some(number) => (i64::from(number) as u64, VARINT),
                None => return Ok(None),
            },
            Type::Int32 => (
                integer(value, i32::MIN.into(), i32::MAX.into(), "an int32")? as u64,
                VARINT,
            ),
            Type::Sint32 => {
                let number = integer(value, i32::MIN.into(), i32::MAX.into(), "an int32")? as i32;
                (u64::from(((number << 1) ^ (number >> 31)) as u32), VARINT)
            }
            Type::Uint32 => (
                integer(value, 0, u32::MAX.into(), "a uint32")? as u64,
                VARINT,
            ),
            Type::Int64 => (
                integer(value, i64::MIN.into(), i64::MAX.into(), "an int64")? as u64,
                VARINT,
            ),
            Type::Sint64 => {
                let number = integer(value, i64::MIN.into(), i64::MAX.into(), "an int64")? as i64;
                (((number << 1) ^ (number >> 63)) as u64, VARINT)
            }
            Type::Uint64 => (
                integer(value, 0, u64::MAX.into(), "a uint64")? as u64,
                VARINT,
            ),
            Type::Fixed32 => (
                integer(value, 0, u32::MAX.into(), "a uint32")? as u64,
                FIXED32,
            ),
            Type::Sfixed32 => {
                let number = integer(value, i32::MIN.into(), i32::MAX.into(), "an int32")?;
                (u64::from(number as u32), FIXED32)
            }
            Type::Fixed64 => (
                integer(value, 0, u64::MAX.into(), "a uint64")? as u64,
                FIXED64,
            ),
            Type::Sfixed64 => (
                integer(value, i64::MIN.into(), i64::MAX.into(), "an int64")? as u64,
                FIXED64,
            ),
            Type::Float => (u64::from(float(value)?.to_bits()), FIXED32),
            Type::Double => (number(value)?.to_bits(), FIXED64),
            Type::String | Type::Bytes | Type::Message => return Ok(Some(LENGTH)),
        };
        if bits == 0 && !explicit {
            return Ok(None);
        }
        match wire_type {
            FIXED32 => out.extend((bits as u32).to_le_bytes()),
            FIXED64 => out.extend(bits.to_le_bytes()),
            _ => put_varint(out, bits),
        }
        Ok(Some(wire_type))
    }

    fn enumeration(&mut self, field: Field, value: &Value) -> Outcome<Option<i32>> {
        let known = field.enumeration();
        match value {
            Value::Null if known.is_null() => Ok(Some(0)),
            Value::Number(_) => integer(value, i32::MIN.into(), i32::MAX.into(), "an enum value")
                .map(|number| Some(number as i32)),
            Value::String(name) => match known.number_of(name, self.options.loose) {
                Some(number) => Ok(Some(number)),
                None if self.options.allow_unknown => {
                    self.note_unknown("");
                    Ok(None)
                }
                None => fail(Problem::UnknownEnumValue {
                    name: known.full_name(),
                    value: name.clone(),
                }),
            },
            _ => expected("an enum value", value),
        }
    }

    fn any(&mut self, value: &Value, depth: usize, out: &mut Vec<u8>) -> Outcome<()> {
        let Value::Object(map) = value else {
            return expected("an object with @type", value);
        };
        let Some(url) = map.get("@type") else {
            if map.is_empty() {
                return Ok(());
            }
            return fail(Problem::MissingType);
        };
        let Value::String(url) = url else {
            return expected("a type URL", url).at_field("@type");
        };
        let mut bytes = Vec::new();
        match table::find(message_name(url)) {
            Some(message) if message.kind() == Kind::Plain => {
                if depth >= self.options.max_depth {
                    return fail(Problem::TooDeep(self.options.max_depth));
                }
                self.fields(message, map, Some("@type"), depth + 1, &mut bytes)?;
            }
            Some(message) => {
                if let Some(key) = map.keys().find(|key| *key != "@type" && *key != "value") {
                    return fail(Problem::UnknownField(message.full_name())).at_field(key);
                }
                match map.get("value") {
                    Some(inner) => self
                        .inside(
                            || ".value".to_owned(),
                            |this| this.message(message, inner, depth + 1, &mut bytes),
                        )
                        .at_field("value")?,
                    None if message.kind() == Kind::Any => {}
                    None => return expected("a value beside @type", value),
                }
            }
            None if self.options.allow_unknown => {
                self.note_unknown("@type");
                // What `from_wire` prints for a type it does not know.
                if let Some(Value::String(text)) = map.get("value")
                    && map.len() == 2
                    && let Some(raw) = base64_bytes(text)
                {
                    bytes = raw;
                }
            }
            None => return fail(Problem::UnknownType(url.clone())).at_field("@type"),
        }
        put_bytes(out, 1, url.as_bytes());
        if !bytes.is_empty() {
            put_bytes(out, 2, &bytes);
        }
        Ok(())
    }

    fn structure(
        &mut self,
        map: &Map<String, Value>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Outcome<()> {
        for (key, value) in map {
            let mut inner = Vec::new();
            self.dynamic(value, depth, &mut inner).at_field(key)?;
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, key.as_bytes());
            put_bytes(&mut entry, 2, &inner);
            put_bytes(out, 1, &entry);
        }
        Ok(())
    }

    fn list(&mut self, list: &[Value], depth: usize, out: &mut Vec<u8>) -> Outcome<()> {
        for (index, value) in list.iter().enumerate() {
            let mut inner = Vec::new();
            self.dynamic(value, depth, &mut inner).at_index(index)?;
            put_bytes(out, 1, &inner);
        }
        Ok(())
    }

    /// `google.protobuf.Value`.
    fn dynamic(&mut self, value: &Value, depth: usize, out: &mut Vec<u8>) -> Outcome<()> {
        if depth > self.options.max_depth {
            return fail(Problem::TooDeep(self.options.max_depth));
        }
        match value {
            Value::Null => out.extend([1 << 3, 0]),
            Value::Number(_) => {
                put_tag(out, 2, FIXED64);
                out.extend(number(value)?.to_bits().to_le_bytes());
            }
            Value::String(text) => put_bytes(out, 3, text.as_bytes()),
            Value::Bool(flag) => out.extend([4 << 3, u8::from(*flag)]),
            Value::Object(map) => {
                let mut inner = Vec::new();
                self.structure(map, depth + 1, &mut inner)?;
                put_bytes(out, 5, &inner);
            }
            Value::Array(list) => {
                let mut inner = Vec::new();
                self.list(list, depth + 1, &mut inner)?;
                put_bytes(out, 6, &inner);
            }
        }
        Ok(())
    }
}

fn takes_null(field: Field) -> bool {
    match field.r#type() {
        Type::Message => !field.repeated() && field.message().kind() == Kind::Value,
        Type::Enum => !field.repeated() && field.enumeration().is_null(),
        _ => false,
    }
}

fn put_instant(out: &mut Vec<u8>, seconds: i64, nanos: i32) {
    for (number, value) in [(1, seconds), (2, i64::from(nanos))] {
        if value != 0 {
            put_tag(out, number, VARINT);
            put_varint(out, value as u64);
        }
    }
}

fn text<T>(value: &Value, what: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Outcome<T> {
    match value.as_str().and_then(parse) {
        Some(parsed) => Ok(parsed),
        None => expected(what, value),
    }
}

/// A whole number in range, as a JSON number or as text; `1.0` and `1e3` are whole.
fn integer(value: &Value, low: i128, high: i128, what: &'static str) -> Outcome<i128> {
    let whole = |float: f64| {
        let exact = float.fract() == 0.0 && float.abs() < 2f64.powi(64);
        exact.then_some(float as i128)
    };
    let found = match value {
        Value::Number(number) => number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from))
            .or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) if !text.starts_with('+') && text.trim() == text => {
            text.parse().ok().or_else(|| decimal(text).and_then(whole))
        }
        _ => None,
    };
    match found {
        Some(number) if (low..=high).contains(&number) => Ok(number),
        _ => expected(what, value),
    }
}

/// A JSON number in a text; Rust's other spellings (`inf`, `+1`) are not numbers here.
fn decimal(text: &str) -> Option<f64> {
    let plain = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
    (plain && !text.starts_with('+')).then(|| text.parse().ok())?
}

fn number(value: &Value) -> Outcome<f64> {
    let found = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => decimal(text).filter(|number| number.is_finite()),
        },
        _ => None,
    };
    found.map_or_else(|| expected("a number", value), Ok)
}

fn float(value: &Value) -> Outcome<f32> {
    let wide = number(value)?;
    let narrow = wide as f32;
    if narrow.is_infinite() && wide.is_finite() {
        return expected("a number in the range of a float", value);
    }
    Ok(narrow)
}

/// YAML 1.1's words for booleans, which Envoy's reader knows.
fn truth(word: &str) -> Option<bool> {
    let is = |known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(word));
    match () {
        () if is(&["true", "yes", "on", "y"]) => Some(true),
        () if is(&["false", "no", "off", "n"]) => Some(false),
        () => None,
    }
}
