//! The schema table, read in place. Little-endian. Layout of `schema/table.bin`:
//! `LXT1`; five `u32` counts (strings, messages, fields, enums, values); `u32` string offsets
//! (count + 1); messages and enums of 12 bytes (package `u16`, name in the package `u16`, first
//! child `u32`, children `u16`, kind `u8`, 0), sorted by full name; fields of 12 bytes (name
//! `u16`, JSON name `u16`, number `u32`, type `u8`, flags `u8`, target `u16`), sorted by number
//! in their message; enum values of 8 bytes (number `i32`, name `u16`, 0); the strings.

use std::cmp::Ordering;

static TABLE: &[u8] = include_bytes!("../../schema/table.bin");

const HEADER: usize = 24;
const MESSAGE: usize = 12;
const FIELD: usize = 12;
const ENUM: usize = 12;
const VALUE: usize = 8;

const fn word(at: usize) -> usize {
    TABLE[at] as usize
        | (TABLE[at + 1] as usize) << 8
        | (TABLE[at + 2] as usize) << 16
        | (TABLE[at + 3] as usize) << 24
}

const fn half(at: usize) -> u16 {
    TABLE[at] as u16 | (TABLE[at + 1] as u16) << 8
}

const STRINGS: usize = word(4);
const MESSAGES: usize = word(8);
const FIELDS: usize = word(12);
const ENUMS: usize = word(16);
const VALUES: usize = word(20);

const MESSAGES_AT: usize = HEADER + (STRINGS + 1) * 4;
const FIELDS_AT: usize = MESSAGES_AT + MESSAGES * MESSAGE;
const ENUMS_AT: usize = FIELDS_AT + FIELDS * FIELD;
const VALUES_AT: usize = ENUMS_AT + ENUMS * ENUM;
const TEXT_AT: usize = VALUES_AT + VALUES * VALUE;

fn text(index: u16) -> &'static str {
    let at = HEADER + usize::from(index) * 4;
    let bytes = &TABLE[TEXT_AT + word(at)..TEXT_AT + word(at + 4)];
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// How a message is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Any,
    Duration,
    Timestamp,
    FieldMask,
    Struct,
    Value,
    ListValue,
    Wrapper,
    MapEntry,
}

/// Declared type of a field; the numbers are those of `FieldDescriptorProto.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Message,
    Bytes,
    Uint32,
    Enum,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

/// A message of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message(u16);

impl Message {
    fn at(self) -> usize {
        MESSAGES_AT + usize::from(self.0) * MESSAGE
    }

    pub(super) fn full_name(self) -> String {
        full_name(self.at())
    }

    pub(super) fn kind(self) -> Kind {
        match TABLE[self.at() + 10] {
            1 => Kind::Any,
            2 => Kind::Duration,
            3 => Kind::Timestamp,
            4 => Kind::FieldMask,
            5 => Kind::Struct,
            6 => Kind::Value,
            7 => Kind::ListValue,
            8 => Kind::Wrapper,
            9 => Kind::MapEntry,
            _ => Kind::Plain,
        }
    }

    pub(super) fn fields(self) -> impl Iterator<Item = Field> {
        let first = word(self.at() + 4);
        (first..first + usize::from(half(self.at() + 8))).map(|index| Field {
            at: FIELDS_AT + index * FIELD,
        })
    }

    /// The field of this name, in either form.
    pub(super) fn field_named(self, name: &str) -> Option<Field> {
        self.fields()
            .find(|field| field.name() == name || field.json_name() == name)
    }

    pub(super) fn field_numbered(self, number: u32) -> Option<Field> {
        self.fields().find(|field| field.number() == number)
    }
}

/// A field of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    at: usize,
}

impl Field {
    pub(super) fn name(self) -> &'static str {
        text(half(self.at))
    }

    pub(super) fn json_name(self) -> &'static str {
        text(half(self.at + 2))
    }

    pub(super) fn number(self) -> u32 {
        word(self.at + 4) as u32
    }

    pub(super) fn r#type(self) -> Type {
        match TABLE[self.at + 8] {
            1 => Type::Double,
            2 => Type::Float,
            3 => Type::Int64,
            4 => Type::Uint64,
            5 => Type::Int32,
            6 => Type::Fixed64,
            7 => Type::Fixed32,
            8 => Type::Bool,
            9 => Type::String,
            12 => Type::Bytes,
            13 => Type::Uint32,
            14 => Type::Enum,
            15 => Type::Sfixed32,
            16 => Type::Sfixed64,
            17 => Type::Sint32,
            18 => Type::Sint64,
            _ => Type::Message,
        }
    }

    pub(super) fn repeated(self) -> bool {
        TABLE[self.at + 9] & 1 != 0
    }

    /// Whether an explicit default value differs from an absent one.
    pub(super) fn presence(self) -> bool {
        TABLE[self.at + 9] & 2 != 0
    }

    /// The oneof of its message that the field belongs to.
    pub(super) fn oneof(self) -> Option<u8> {
        (TABLE[self.at + 9] >> 4).checked_sub(1)
    }

    pub(super) fn message(self) -> Message {
        Message(half(self.at + 10))
    }

    pub(super) fn enumeration(self) -> Enum {
        Enum(half(self.at + 10))
    }

    /// For a map: the key's and the value's field.
    pub(super) fn map(self) -> Option<(Field, Field)> {
        if !self.repeated() || self.r#type() != Type::Message {
            return None;
        }
        let entry = self.message();
        if entry.kind() != Kind::MapEntry {
            return None;
        }
        Some((entry.field_numbered(1)?, entry.field_numbered(2)?))
    }
}

/// An enum of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Enum(u16);

impl Enum {
    fn at(self) -> usize {
        ENUMS_AT + usize::from(self.0) * ENUM
    }

    pub(super) fn full_name(self) -> String {
        full_name(self.at())
    }

    /// Whether it is `google.protobuf.NullValue`, which JSON writes as `null`.
    pub(super) fn is_null(self) -> bool {
        TABLE[self.at() + 10] == 1
    }

    fn values(self) -> impl Iterator<Item = (i32, &'static str)> {
        let first = word(self.at() + 4);
        (first..first + usize::from(half(self.at() + 8))).map(|index| {
            let at = VALUES_AT + index * VALUE;
            (word(at) as u32 as i32, text(half(at + 4)))
        })
    }

    /// The number of a name; of one in any case, or of a number in a text, if `words`.
    pub(super) fn number_of(self, name: &str, words: bool) -> Option<i32> {
        let found = self
            .values()
            .find(|(_, known)| *known == name || words && known.eq_ignore_ascii_case(name));
        let number = || words.then(|| name.parse().ok()).flatten();
        found.map(|(number, _)| number).or_else(number)
    }

    pub(super) fn name_of(self, number: i32) -> Option<&'static str> {
        self.values()
            .find(|(known, _)| *known == number)
            .map(|(_, name)| name)
    }
}

fn full_name(at: usize) -> String {
    let (package, name) = (text(half(at)), text(half(at + 2)));
    if package.is_empty() {
        name.to_owned()
    } else {
        format!("{package}.{name}")
    }
}

/// All messages, by full name.
pub(super) fn messages() -> impl Iterator<Item = Message> {
    (0..MESSAGES).map(|index| Message(index as u16))
}

/// The message of this full name.
pub(super) fn find(name: &str) -> Option<Message> {
    let (mut low, mut high) = (0, MESSAGES);
    while low < high {
        let middle = usize::midpoint(low, high);
        let message = Message(middle as u16);
        match compare(message.at(), name) {
            Ordering::Equal => return Some(message),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    None
}

/// Compares a full name of the table with `name` without building it.
fn compare(at: usize, name: &str) -> Ordering {
    let (package, rest) = (text(half(at)), text(half(at + 2)));
    let dot = if package.is_empty() { "" } else { "." };
    package
        .bytes()
        .chain(dot.bytes())
        .chain(rest.bytes())
        .cmp(name.bytes())
}
