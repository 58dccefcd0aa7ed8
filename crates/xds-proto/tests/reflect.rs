//! The transcoder against an independent implementation (prost-reflect over the committed
//! descriptor set), and the agreement of the committed files.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use lateen_xds_proto::google::protobuf::FileDescriptorSet;
use lateen_xds_proto::json::{self, Names, PrintOptions};
use lateen_xds_proto::{Message, Name};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use serde_json::{Map, Value, json};

#[path = "../schema/compile.rs"]
mod compile;

fn descriptors() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/descriptors.binpb.gz");
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(std::fs::read(path).unwrap().as_slice())
        .read_to_end(&mut raw)
        .unwrap();
    raw
}

fn pool() -> &'static DescriptorPool {
    static POOL: std::sync::OnceLock<DescriptorPool> = std::sync::OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(descriptors().as_slice()).unwrap())
}

#[test]
fn the_table_is_what_the_descriptors_say() {
    let set = FileDescriptorSet::decode(descriptors().as_slice()).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/table.bin");
    assert!(
        compile::compile(&set) == std::fs::read(path).unwrap(),
        "run `cargo run -p lateen-xds-proto --example schema`"
    );
}

#[test]
fn the_table_knows_every_message_of_the_descriptors() {
    let ours: BTreeSet<String> = json::message_names().collect();
    let theirs: BTreeSet<String> = pool()
        .all_messages()
        .map(|m| m.full_name().to_owned())
        .collect();
    assert_eq!(ours, theirs);
    assert!(ours.iter().all(|name| json::knows(name)));
    assert!(!json::knows("envoy.config.cluster.v3.Clusters"));
}

/// JSON through prost-reflect into wire bytes and back.
fn reflect_from_wire(descriptor: &MessageDescriptor, wire: &[u8], names: Names) -> Value {
    let message = DynamicMessage::decode(descriptor.clone(), wire).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(names == Names::Snake);
    let value = message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .unwrap();
    normal(value)
}

/// Numbers compare by value, and a `null` in a Struct is a value like others.
fn normal(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(list) => list.into_iter().map(normal).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, normal(v))).collect()),
        other => other,
    }
}

/// A random JSON value for a message, with all its fields possible.
fn message_json(
    descriptor: &MessageDescriptor,
    random: &mut fastrand_lite::Random,
    depth: usize,
) -> Value {
    match descriptor.full_name() {
        "google.protobuf.Duration" => {
            return json!(["0s", "1.500s", "-3s", "0.000001s"][random.below(4)]);
        }
        "google.protobuf.Timestamp" => {
            return json!(["1970-01-01T00:00:00Z", "2024-02-29T01:02:03.004Z"][random.below(2)]);
        }
        "google.protobuf.FieldMask" => return json!(["a.bC", "x,y"][random.below(2)]),
        "google.protobuf.Struct" => {
            return json!({"k": random.below(9), "l": [true, null, "t", {"d": 0.5}]});
        }
        "google.protobuf.Value" => {
            return [json!([1, "x"]), json!({"a": null})][random.below(2)].clone();
        }
        "google.protobuf.ListValue" => return json!([1, "x", [], {}]),
        "google.protobuf.Any" => {
            let choices = [
                "envoy.config.cluster.v3.Cluster",
                "envoy.extensions.filters.http.router.v3.Router",
                "udpa.type.v1.TypedStruct",
                "stats.PluginConfig",
            ];
            let name = choices[random.below(4)];
            if depth > 4 {
                return json!({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"});
            }
            let inner = message_json(
                &pool().get_message_by_name(name).unwrap(),
                random,
                depth + 1,
            );
            let mut map = Map::from_iter([(
                "@type".to_owned(),
                json!(format!("type.googleapis.com/{name}")),
            )]);
            map.extend(inner.as_object().cloned().unwrap());
            return Value::Object(map);
        }
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            let field = descriptor.get_field(1).unwrap();
            return scalar_json(&field, random, depth);
        }
        _ => {}
    }
    let mut map = Map::new();
    let mut oneofs = BTreeSet::new();
    for field in descriptor.fields() {
        if depth > 5 && matches!(field.kind(), Kind::Message(_)) {
            continue;
        }
        let wanted = random.below(if depth < 2 { 2 } else { 6 }) == 0;
        let free = field
            .containing_oneof()
            .is_none_or(|oneof| oneofs.insert(oneof.full_name().to_owned()));
        if !wanted || !free {
            continue;
        }
        let name = if random.below(2) == 0 {
            field.name()
        } else {
            field.json_name()
        };
        map.insert(name.to_owned(), field_json(&field, random, depth));
    }
    Value::Object(map)
}

fn field_json(field: &FieldDescriptor, random: &mut fastrand_lite::Random, depth: usize) -> Value {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            unreachable!("a map has entries")
        };
        let key = match scalar_json(&entry.map_entry_key_field(), random, depth) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let value = scalar_json(&entry.map_entry_value_field(), random, depth);
        return json!({key: value});
    }
    if field.is_list() {
        return (0..random.below(3) + 1)
            .map(|_| scalar_json(field, random, depth))
            .collect();
    }
    scalar_json(field, random, depth)
}

fn scalar_json(field: &FieldDescriptor, random: &mut fastrand_lite::Random, depth: usize) -> Value {
    match field.kind() {
        Kind::Double | Kind::Float => json!([0.0, 0.5, -2.25, 3.0][random.below(4)]),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!([0, 7, -7, i32::MIN][random.below(4)]),
        Kind::Uint32 | Kind::Fixed32 => json!([0, 7, u32::MAX][random.below(3)]),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            json!(["0", "-9223372036854775808", "12"][random.below(3)])
        }
        Kind::Uint64 | Kind::Fixed64 => json!(["0", "18446744073709551615", "12"][random.below(3)]),
        Kind::Bool => json!(random.below(2) == 0),
        Kind::String => json!(["", "text", "\u{e9}\"\n"][random.below(3)]),
        Kind::Bytes => json!(["", "AQID", "/w=="][random.below(3)]),
        Kind::Message(inner) => message_json(&inner, random, depth + 1),
        Kind::Enum(inner) => {
            let values: Vec<_> = inner.values().collect();
            let value = &values[random.below(values.len())];
            if inner.full_name() == "google.protobuf.NullValue" {
                return Value::Null;
            }
            if random.below(2) == 0 {
                json!(value.name())
            } else {
                json!(value.number())
            }
        }
    }
}

/// A seeded generator, so that a failing case can be run again from its seed.
mod fastrand_lite {
    pub struct Random(pub u64);

    impl Random {
        /// A number under `bound` (splitmix64).
        pub fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % bound as u64) as usize
        }
    }
}

/// Our bytes for `value` mean to prost-reflect what its own do, and both print the same.
fn check(descriptor: &MessageDescriptor, value: &Value) {
    let name = descriptor.full_name();
    let theirs = DynamicMessage::deserialize(descriptor.clone(), value.clone())
        .unwrap_or_else(|error| panic!("{name}: prost-reflect refuses {value}: {error}"));
    let ours =
        json::to_wire(name, value).unwrap_or_else(|error| panic!("{name}: {error} in {value}"));
    for names in [Names::Snake, Names::Camel] {
        let options = PrintOptions {
            names,
            strict_any: true,
            ..PrintOptions::default()
        };
        let printed = normal(json::from_wire_with(name, &ours, &options).unwrap());
        assert_eq!(
            printed,
            reflect_from_wire(descriptor, &ours, names),
            "{name}: printing"
        );
        assert_eq!(
            printed,
            reflect_from_wire(descriptor, &theirs.encode_to_vec(), names),
            "{name}: reading {value}"
        );
    }
}

#[test]
fn every_message_agrees_with_the_other_implementation() {
    for descriptor in pool().all_messages() {
        if descriptor.is_map_entry() {
            continue;
        }
        for seed in 0..2 {
            let value = message_json(&descriptor, &mut fastrand_lite::Random(seed), 3);
            check(&descriptor, &value);
        }
    }
}

#[test]
fn the_messages_of_xds_agree_on_many_random_values() {
    let names = [
        lateen_xds_proto::envoy::config::listener::v3::Listener::full_name(),
        lateen_xds_proto::envoy::config::route::v3::RouteConfiguration::full_name(),
        lateen_xds_proto::envoy::config::cluster::v3::Cluster::full_name(),
        lateen_xds_proto::envoy::config::endpoint::v3::ClusterLoadAssignment::full_name(),
        lateen_xds_proto::envoy::config::bootstrap::v3::Bootstrap::full_name(),
    ];
    let mut runner = TestRunner::new(Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&(any::<u64>(), 0..names.len()), |(seed, which)| {
            let descriptor = pool().get_message_by_name(&names[which]).unwrap();
            let value = message_json(&descriptor, &mut fastrand_lite::Random(seed), 1);
            check(&descriptor, &value);
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_bytes_never_panic() {
    let mut runner = TestRunner::new(Config {
        cases: 500,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&proptest::collection::vec(any::<u8>(), 0..200), |bytes| {
            let _ = json::from_wire("envoy.config.bootstrap.v3.Bootstrap", &bytes);
            let _ = json::from_wire("google.protobuf.Any", &bytes);
            let _ = json::from_wire("google.protobuf.Struct", &bytes);
            Ok(())
        })
        .unwrap();
}

/// Replaces a random part of a value by something of another kind.
fn mutate(value: &mut Value, random: &mut fastrand_lite::Random) {
    let inner = match value {
        Value::Object(map) if !map.is_empty() && random.below(5) > 0 => {
            let at = random.below(map.len());
            map.values_mut().nth(at)
        }
        Value::Array(list) if !list.is_empty() && random.below(5) > 0 => {
            let at = random.below(list.len());
            list.get_mut(at)
        }
        _ => None,
    };
    if let Some(inner) = inner {
        return mutate(inner, random);
    }
    let others = [
        json!(1),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!(true),
        json!([]),
        json!({}),
        json!("1"),
        json!([1]),
        json!({"a": 1}),
        json!(1e40),
        json!("1s"),
        json!(["x"]),
        json!(18446744073709551615u64),
    ];
    *value = others[random.below(others.len())].clone();
}

#[test]
fn wrong_values_are_refused_where_the_other_implementation_refuses_them() {
    let (mut same, mut refused) = (0, 0);
    for descriptor in pool().all_messages().filter(|d| !d.is_map_entry()) {
        for seed in 0..3 {
            let random = &mut fastrand_lite::Random(seed + 1000);
            let mut value = message_json(&descriptor, random, 2);
            mutate(&mut value, random);
            let theirs = DynamicMessage::deserialize(descriptor.clone(), value.clone());
            let ours = json::to_wire(descriptor.full_name(), &value);
            assert_eq!(
                ours.is_ok(),
                theirs.is_ok(),
                "{} {value}\n{ours:?}\n{theirs:?}",
                descriptor.full_name()
            );
            same += 1;
            refused += usize::from(ours.is_err());
        }
    }
    assert!(refused > 500 && refused < same, "{refused} of {same}");
}
