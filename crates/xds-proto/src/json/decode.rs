//! Wire bytes to JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::table::{self, Field, Kind, Message, Type};
use super::well_known::{mask_to_camel, print_duration, print_timestamp};
use super::wire::{Item, fixed32, fixed64, items, varint};
use super::{At, Names, Outcome, PrintOptions, Problem, fail};
use crate::type_url::message_name;

pub(super) fn decode(name: &str, wire: &[u8], options: &PrintOptions) -> Outcome<Value> {
    let Some(message) = table::find(name) else {
        return fail(Problem::UnknownType(name.to_owned()));
    };
    if wire.len() > options.max_bytes {
        return fail(Problem::TooLarge(options.max_bytes));
    }
    Decoder { options }.message(message, wire, 0)
}

struct Decoder<'a> {
    options: &'a PrintOptions,
}

/// What there is of one field: its occurrences in wire order.
struct Found<'w, 'l> {
    field: Field,
    items: &'l [(u32, Item<'w>)],
}

impl Decoder<'_> {
    fn message(&self, message: Message, wire: &[u8], depth: usize) -> Outcome<Value> {
        if depth > self.options.max_depth {
            return fail(Problem::TooDeep(self.options.max_depth));
        }
        match message.kind() {
            Kind::Plain | Kind::MapEntry => {
                let mut map = Map::new();
                self.fields(message, wire, depth, &mut map)?;
                Ok(Value::Object(map))
            }
            Kind::Any => self.any(wire, depth),
            Kind::Duration => instant(wire, print_duration, "a duration is out of range"),
            Kind::Timestamp => instant(wire, print_timestamp, "a timestamp is out of range"),
            Kind::FieldMask => mask(wire),
            Kind::Struct => self.structure(wire, depth),
            Kind::Value => self.dynamic(wire, depth),
            Kind::ListValue => self.list(wire, depth),
            Kind::Wrapper => self.wrapper(message, wire),
        }
    }

    fn fields(
        &self,
        message: Message,
        wire: &[u8],
        depth: usize,
        map: &mut Map<String, Value>,
    ) -> Outcome<()> {
        let mut all = items(wire)?;
        // Of a oneof, the member that came last on the wire is the one that is set.
        let mut chosen: Vec<(u8, u32)> = Vec::new();
        for (number, _) in &all {
            if let Some(oneof) = message.field_numbered(*number).and_then(Field::oneof) {
                match chosen.iter_mut().find(|(known, _)| *known == oneof) {
                    Some(entry) => entry.1 = *number,
                    None => chosen.push((oneof, *number)),
                }
            }
        }
        all.sort_by_key(|(number, _)| *number);
        for group in all.chunk_by(|a, b| a.0 == b.0) {
            let number = group[0].0;
            let Some(field) = message.field_numbered(number) else {
                continue;
            };
            let loser = field
                .oneof()
                .is_some_and(|oneof| !chosen.contains(&(oneof, number)));
            if loser {
                continue;
            }
            let found = Found {
                field,
                items: group,
            };
            if let Some(value) = self.field(&found, depth).at_field(field.name())? {
                map.insert(self.name(field).to_owned(), value);
            }
        }
        Ok(())
    }

    fn name(&self, field: Field) -> &'static str {
        match self.options.names {
            Names::Snake => field.name(),
            Names::Camel => field.json_name(),
        }
    }

    fn field(&self, found: &Found<'_, '_>, depth: usize) -> Outcome<Option<Value>> {
        let field = found.field;
        if let Some((key, value)) = field.map() {
            return self.map(found, key, value, depth).map(Some);
        }
        if field.repeated() {
            let mut list = Vec::new();
            for (_, item) in found.items {
                self.elements(field, *item, depth, &mut list)?;
            }
            return Ok((!list.is_empty()).then_some(Value::Array(list)));
        }
        if field.r#type() == Type::Message {
            return self.singular_message(found, depth).map(Some);
        }
        let Some((_, last)) = found.items.last() else {
            return Ok(None);
        };
        let value = self.scalar(field, *last)?;
        Ok((field.presence() || !is_default(field, *last)).then_some(value))
    }

    /// Several occurrences of a singular message are merged, which on the wire is to append.
    fn singular_message(&self, found: &Found<'_, '_>, depth: usize) -> Outcome<Value> {
        let message = found.field.message();
        if let [(_, item)] = found.items {
            return self.message(message, bytes(*item)?, depth + 1);
        }
        let mut joined = Vec::new();
        for (_, item) in found.items {
            joined.extend_from_slice(bytes(*item)?);
        }
        self.message(message, &joined, depth + 1)
    }

    fn elements(
        &self,
        field: Field,
        item: Item<'_>,
        depth: usize,
        list: &mut Vec<Value>,
    ) -> Outcome<()> {
        match (field.r#type(), item) {
            (Type::Message, item) => {
                let value = self
                    .message(field.message(), bytes(item)?, depth + 1)
                    .at_index(list.len())?;
                list.push(value);
            }
            (Type::String | Type::Bytes, item) => list.push(self.scalar(field, item)?),
            (_, Item::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    let item = match field.r#type() {
                        Type::Float | Type::Fixed32 | Type::Sfixed32 => {
                            Item::Fixed32(fixed32(&mut packed)?)
                        }
                        Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                            Item::Fixed64(fixed64(&mut packed)?)
                        }
                        _ => Item::Varint(varint(&mut packed)?),
                    };
                    list.push(self.scalar(field, item)?);
                }
            }
            (_, item) => list.push(self.scalar(field, item)?),
        }
        Ok(())
    }

    fn map(&self, found: &Found<'_, '_>, key: Field, value: Field, depth: usize) -> Outcome<Value> {
        let mut map = Map::new();
        for (_, item) in found.items {
            let entry = items(bytes(*item)?)?;
            let last = |number: u32| entry.iter().rev().find(|(n, _)| *n == number);
            let name = match last(1) {
                Some((_, item)) => match self.scalar(key, *item)? {
                    Value::String(text) => text,
                    other => other.to_string(),
                },
                None => default_key(key),
            };
            let printed = match (value.r#type(), last(2)) {
                (Type::Message, item) => {
                    let inner = item.map_or(Ok(&[][..]), |(_, item)| bytes(*item))?;
                    self.message(value.message(), inner, depth + 1)
                }
                (_, Some((_, item))) => self.scalar(value, *item),
                (_, None) => self.scalar(value, default_item(value)),
            };
            map.insert(name.clone(), printed.at_key(&name)?);
        }
        // Maps have no order on the wire: sorted, so that equal messages print alike.
        map.sort_keys();
        Ok(Value::Object(map))
    }

    fn scalar(&self, field: Field, item: Item<'_>) -> Outcome<Value> {
        let bits = match (field.r#type(), item) {
            (Type::String, item) => return text(bytes(item)?).map(Value::from),
            (Type::Bytes, item) => return Ok(STANDARD.encode(bytes(item)?).into()),
            (Type::Float, Item::Fixed32(bits)) => return Ok(print_float(f32::from_bits(bits))),
            (Type::Double, Item::Fixed64(bits)) => return Ok(print_double(f64::from_bits(bits))),
            (Type::Fixed32, Item::Fixed32(bits)) => return Ok(bits.into()),
            (Type::Sfixed32, Item::Fixed32(bits)) => return Ok((bits as i32).into()),
            (Type::Fixed64, Item::Fixed64(bits)) => return Ok(bits.to_string().into()),
            (Type::Sfixed64, Item::Fixed64(bits)) => return Ok((bits as i64).to_string().into()),
            (_, Item::Varint(bits)) => bits,
            _ => return fail(Problem::Wire("a field has another wire type")),
        };
        Ok(match field.r#type() {
            Type::Int32 => (bits as i32).into(),
            Type::Uint32 => (bits as u32).into(),
            Type::Sint32 => {
                let bits = bits as u32;
                ((bits >> 1) as i32 ^ -((bits & 1) as i32)).into()
            }
            Type::Int64 => (bits as i64).to_string().into(),
            Type::Uint64 => bits.to_string().into(),
            Type::Sint64 => ((bits >> 1) as i64 ^ -((bits & 1) as i64))
                .to_string()
                .into(),
            Type::Bool => (bits != 0).into(),
            Type::Enum => {
                let number = bits as i32;
                let known = field.enumeration();
                match known.name_of(number) {
                    _ if known.is_null() => Value::Null,
                    Some(name) => name.into(),
                    None => number.into(),
                }
            }
            _ => return fail(Problem::Wire("a field has another wire type")),
        })
    }

    fn wrapper(&self, message: Message, wire: &[u8]) -> Outcome<Value> {
        let Some(field) = message.field_numbered(1) else {
            return fail(Problem::UnknownType(message.full_name()));
        };
        let all = items(wire)?;
        let last = all.iter().rev().find(|(number, _)| *number == 1);
        self.scalar(
            field,
            last.map_or_else(|| default_item(field), |(_, item)| *item),
        )
    }

    fn any(&self, wire: &[u8], depth: usize) -> Outcome<Value> {
        let all = items(wire)?;
        let part = |wanted: u32| match all.iter().rev().find(|(number, _)| *number == wanted) {
            Some((_, item)) => bytes(*item),
            None => Ok(&[][..]),
        };
        let (url, value) = (text(part(1)?)?, part(2)?);
        let mut map = Map::new();
        if url.is_empty() && value.is_empty() {
            return Ok(Value::Object(map));
        }
        map.insert("@type".to_owned(), url.into());
        match self.any_content(url, value, depth, &mut map) {
            Ok(()) => {}
            Err(failure)
                if !self.options.strict_any && !matches!(failure.problem, Problem::TooDeep(_)) =>
            {
                map.retain(|key, _| key == "@type");
                map.insert("value".to_owned(), STANDARD.encode(value).into());
            }
            Err(failure) => return Err(failure),
        }
        Ok(Value::Object(map))
    }

    fn any_content(
        &self,
        url: &str,
        value: &[u8],
        depth: usize,
        map: &mut Map<String, Value>,
    ) -> Outcome<()> {
        let Some(message) = table::find(message_name(url)) else {
            return fail(Problem::UnknownType(url.to_owned()));
        };
        if message.kind() != Kind::Plain {
            let inner = self.message(message, value, depth + 1)?;
            map.insert("value".to_owned(), inner);
            return Ok(());
        }
        if depth >= self.options.max_depth {
            return fail(Problem::TooDeep(self.options.max_depth));
        }
        self.fields(message, value, depth + 1, map)
    }

    fn structure(&self, wire: &[u8], depth: usize) -> Outcome<Value> {
        let mut map = Map::new();
        for (number, item) in items(wire)? {
            if number != 1 {
                continue;
            }
            let entry = items(bytes(item)?)?;
            let last = |wanted: u32| match entry.iter().rev().find(|(n, _)| *n == wanted) {
                Some((_, item)) => bytes(*item),
                None => Ok(&[][..]),
            };
            let key = text(last(1)?)?;
            map.insert(key.to_owned(), self.dynamic(last(2)?, depth).at_field(key)?);
        }
        map.sort_keys();
        Ok(Value::Object(map))
    }

    fn list(&self, wire: &[u8], depth: usize) -> Outcome<Value> {
        let mut list = Vec::new();
        for (number, item) in items(wire)? {
            if number == 1 {
                list.push(self.dynamic(bytes(item)?, depth).at_index(list.len())?);
            }
        }
        Ok(Value::Array(list))
    }

    /// `google.protobuf.Value`; one without a kind is printed as `null`.
    fn dynamic(&self, wire: &[u8], depth: usize) -> Outcome<Value> {
        if depth > self.options.max_depth {
            return fail(Problem::TooDeep(self.options.max_depth));
        }
        match items(wire)?.last() {
            Some((2, Item::Fixed64(bits))) => Ok(print_double(f64::from_bits(*bits))),
            Some((3, item)) => text(bytes(*item)?).map(Value::from),
            Some((4, Item::Varint(bits))) => Ok((*bits != 0).into()),
            Some((5, item)) => self.structure(bytes(*item)?, depth + 1),
            Some((6, item)) => self.list(bytes(*item)?, depth + 1),
            _ => Ok(Value::Null),
        }
    }
}

fn bytes(item: Item<'_>) -> Outcome<&[u8]> {
    match item {
        Item::Bytes(bytes) => Ok(bytes),
        _ => fail(Problem::Wire("a field has another wire type")),
    }
}

fn text(bytes: &[u8]) -> Outcome<&str> {
    std::str::from_utf8(bytes).or_else(|_| fail(Problem::Wire("a string is not UTF-8")))
}

fn is_default(field: Field, item: Item<'_>) -> bool {
    match item {
        Item::Varint(bits) => bits == 0,
        Item::Fixed64(bits) => bits == 0,
        Item::Fixed32(bits) => bits == 0,
        Item::Bytes(bytes) => bytes.is_empty() && field.r#type() != Type::Message,
    }
}

fn default_item(field: Field) -> Item<'static> {
    match field.r#type() {
        Type::String | Type::Bytes | Type::Message => Item::Bytes(&[]),
        Type::Double | Type::Fixed64 | Type::Sfixed64 => Item::Fixed64(0),
        Type::Float | Type::Fixed32 | Type::Sfixed32 => Item::Fixed32(0),
        _ => Item::Varint(0),
    }
}

fn default_key(key: Field) -> String {
    match key.r#type() {
        Type::String => String::new(),
        Type::Bool => "false".to_owned(),
        _ => "0".to_owned(),
    }
}

fn instant(
    wire: &[u8],
    print: impl FnOnce(i64, i32) -> Option<String>,
    problem: &'static str,
) -> Outcome<Value> {
    let (mut seconds, mut nanos) = (0, 0);
    for (number, item) in items(wire)? {
        match (number, item) {
            (1, Item::Varint(bits)) => seconds = bits as i64,
            (2, Item::Varint(bits)) => nanos = bits as i32,
            _ => {}
        }
    }
    match print(seconds, nanos) {
        Some(text) => Ok(text.into()),
        None => fail(Problem::Wire(problem)),
    }
}

fn mask(wire: &[u8]) -> Outcome<Value> {
    let mut paths = Vec::new();
    for (number, item) in items(wire)? {
        if number == 1 {
            match mask_to_camel(text(bytes(item)?)?) {
                Some(path) => paths.push(path),
                None => return fail(Problem::Wire("a field mask path has no JSON form")),
            }
        }
    }
    Ok(paths.join(",").into())
}

/// Whole numbers without a point, the rest in their shortest form.
fn print_double(value: f64) -> Value {
    let whole =
        value.fract() == 0.0 && value.abs() < 9e15 && !(value == 0.0 && value.is_sign_negative());
    if whole {
        return (value as i64).into();
    }
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn print_float(value: f32) -> Value {
    // The shortest text that gives this float again, not the longer one of its double.
    match value.to_string().parse::<f64>() {
        Ok(short) if value.is_finite() => print_double(short),
        _ => print_double(f64::from(value)),
    }
}
