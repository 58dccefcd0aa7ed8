//! Compiles a descriptor set into the table that `src/json/table.rs` reads (layout there).
//! Development-time code: used by `examples/schema.rs` and by the test that both files agree.

use std::collections::{BTreeMap, HashMap};

use lateen_xds_proto::google::protobuf::field_descriptor_proto::{Label, Type};
use lateen_xds_proto::google::protobuf::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
};

struct Found<'a, T> {
    package: &'a str,
    item: &'a T,
    proto2: bool,
}

/// Collects messages and enums of a set under their full names.
struct Census<'a> {
    messages: BTreeMap<String, Found<'a, DescriptorProto>>,
    enums: BTreeMap<String, Found<'a, EnumDescriptorProto>>,
}

impl<'a> Census<'a> {
    fn take(set: &'a FileDescriptorSet) -> Self {
        let mut census = Census {
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
        };
        for file in &set.file {
            let package = file.package.as_deref().unwrap_or_default();
            let proto2 = file.syntax.as_deref() != Some("proto3");
            for message in &file.message_type {
                census.message(package, package, message, proto2);
            }
            for item in &file.enum_type {
                census.enumeration(package, package, item, proto2);
            }
        }
        census
    }

    fn message(&mut self, package: &'a str, scope: &str, item: &'a DescriptorProto, proto2: bool) {
        let name = join(scope, item.name.as_deref().unwrap_or_default());
        for nested in &item.nested_type {
            self.message(package, &name, nested, proto2);
        }
        for nested in &item.enum_type {
            self.enumeration(package, &name, nested, proto2);
        }
        self.messages.insert(
            name,
            Found {
                package,
                item,
                proto2,
            },
        );
    }

    fn enumeration(
        &mut self,
        package: &'a str,
        scope: &str,
        item: &'a EnumDescriptorProto,
        proto2: bool,
    ) {
        let name = join(scope, item.name.as_deref().unwrap_or_default());
        self.enums.insert(
            name,
            Found {
                package,
                item,
                proto2,
            },
        );
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

/// Interned strings, in order of first use.
#[derive(Default)]
struct Strings {
    index: HashMap<String, u16>,
    all: Vec<String>,
}

impl Strings {
    fn intern(&mut self, text: &str) -> u16 {
        if let Some(found) = self.index.get(text) {
            return *found;
        }
        let new = u16::try_from(self.all.len()).expect("fewer than 65536 distinct names");
        self.index.insert(text.to_owned(), new);
        self.all.push(text.to_owned());
        new
    }
}

/// The table for a descriptor set.
pub fn compile(set: &FileDescriptorSet) -> Vec<u8> {
    let census = Census::take(set);
    let message_index = index_of(census.messages.keys());
    let enum_index = index_of(census.enums.keys());
    let mut strings = Strings::default();
    let (mut messages, mut fields) = (Vec::new(), Vec::new());
    for (full, found) in &census.messages {
        let mut sorted: Vec<&FieldDescriptorProto> = found.item.field.iter().collect();
        sorted.sort_by_key(|field| field.number());
        let first = u32::try_from(fields.len() / 12).expect("field count");
        head(
            &mut messages,
            &mut strings,
            full,
            found.package,
            first,
            sorted.len(),
        );
        messages.push(kind(full, found.item));
        messages.push(0);
        for field in sorted {
            let target = match field.r#type() {
                Type::Message | Type::Group => message_index[&field.type_name()[1..]],
                Type::Enum => enum_index[&field.type_name()[1..]],
                _ => 0,
            };
            fields.extend(strings.intern(field.name()).to_le_bytes());
            fields.extend(strings.intern(&json_name(field)).to_le_bytes());
            fields.extend(field.number().to_le_bytes());
            fields.push(u8::try_from(field.r#type() as i32).expect("type number"));
            fields.push(flags(field, found.proto2));
            fields.extend(target.to_le_bytes());
        }
    }
    let (mut enums, mut values) = (Vec::new(), Vec::new());
    for (full, found) in &census.enums {
        let first = u32::try_from(values.len() / 8).expect("value count");
        let all = &found.item.value;
        head(
            &mut enums,
            &mut strings,
            full,
            found.package,
            first,
            all.len(),
        );
        enums.extend([u8::from(full == "google.protobuf.NullValue"), 0]);
        for value in all {
            values.extend(value.number().to_le_bytes());
            values.extend(strings.intern(value.name()).to_le_bytes());
            values.extend([0, 0]);
        }
    }
    assemble(&strings, [&messages, &fields, &enums, &values])
}

fn index_of<'a>(names: impl Iterator<Item = &'a String>) -> HashMap<&'a str, u16> {
    names
        .enumerate()
        .map(|(index, name)| (name.as_str(), u16::try_from(index).expect("u16 index")))
        .collect()
}

/// Package, name in the package, first child, number of children: ten bytes.
fn head(
    out: &mut Vec<u8>,
    strings: &mut Strings,
    full: &str,
    package: &str,
    first: u32,
    count: usize,
) {
    let name = full[package.len()..].trim_start_matches('.');
    out.extend(strings.intern(package).to_le_bytes());
    out.extend(strings.intern(name).to_le_bytes());
    out.extend(first.to_le_bytes());
    out.extend(u16::try_from(count).expect("children").to_le_bytes());
}

fn assemble(strings: &Strings, sections: [&Vec<u8>; 4]) -> Vec<u8> {
    let widths = [12, 12, 12, 8];
    let mut out = b"LXT1".to_vec();
    let word = |out: &mut Vec<u8>, value: usize| {
        out.extend(u32::try_from(value).expect("fits").to_le_bytes());
    };
    word(&mut out, strings.all.len());
    for (section, width) in sections.iter().zip(widths) {
        word(&mut out, section.len() / width);
    }
    let mut offset = 0;
    for text in &strings.all {
        word(&mut out, offset);
        offset += text.len();
    }
    word(&mut out, offset);
    for section in sections {
        out.extend(section);
    }
    for text in &strings.all {
        out.extend(text.as_bytes());
    }
    out
}

fn kind(full: &str, item: &DescriptorProto) -> u8 {
    if item.options.as_ref().is_some_and(|o| o.map_entry()) {
        return 9;
    }
    match full.strip_prefix("google.protobuf.").unwrap_or_default() {
        "Any" => 1,
        "Duration" => 2,
        "Timestamp" => 3,
        "FieldMask" => 4,
        "Struct" => 5,
        "Value" => 6,
        "ListValue" => 7,
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
        | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => 8,
        _ => 0,
    }
}

/// Bit 0 repeated, bit 1 explicit presence, high four bits oneof index plus one.
fn flags(field: &FieldDescriptorProto, proto2: bool) -> u8 {
    let repeated = field.label() == Label::Repeated;
    let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
    let present = !repeated
        && (proto2
            || field.proto3_optional()
            || oneof.is_some()
            || matches!(field.r#type(), Type::Message | Type::Group));
    let oneof = oneof.map_or(0, |index| u8::try_from(index + 1).expect("few oneofs"));
    assert!(oneof < 16, "{} has too many oneofs", field.name());
    u8::from(repeated) | (u8::from(present) << 1) | (oneof << 4)
}

fn json_name(field: &FieldDescriptorProto) -> String {
    if let Some(name) = &field.json_name {
        return name.clone();
    }
    let mut out = String::new();
    let mut upper = false;
    for letter in field.name().chars() {
        match letter {
            '_' => upper = true,
            _ if upper => {
                out.push(letter.to_ascii_uppercase());
                upper = false;
            }
            _ => out.push(letter),
        }
    }
    out
}
