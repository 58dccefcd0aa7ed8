//! Small builders for the wire types: wrapped numbers, addresses, packed extensions and
//! `Struct` bytes in a fixed order (the generated maps have none).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lateen_xds_proto::any::pack;
use lateen_xds_proto::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Metadata, Pipe, SocketAddress,
    TypedExtensionConfig, address, config_source, socket_address,
};
use lateen_xds_proto::{
    Any, BoolValue, Duration as WireDuration, Message, Name, Struct, UInt32Value, Value, type_url,
};
use serde_json::Value as Json;

/// Any address, IPv4.
pub const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A wrapped number.
pub fn u32_value(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// A wrapped boolean.
pub fn bool_value(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// A duration on the wire.
pub fn duration(d: Duration) -> Option<WireDuration> {
    Some(WireDuration {
        // A span above 292 billion years does not occur.
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(d.subsec_nanos()).unwrap_or(0),
    })
}

/// `address:port` over TCP.
pub fn socket_address(address: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(port))),
            ..SocketAddress::default()
        })),
    }
}

/// A Unix socket.
pub fn pipe(path: &str) -> Address {
    Address {
        address: Some(address::Address::Pipe(Pipe {
            path: path.to_owned(),
            mode: 0,
        })),
    }
}

/// "Over this very ADS stream", waiting for the first answer without limit.
pub fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
            AggregatedConfigSource::default(),
        )),
        initial_fetch_timeout: duration(Duration::ZERO),
        resource_api_version: ApiVersion::V3 as i32,
        ..ConfigSource::default()
    }
}

/// A named extension.
pub fn extension<T: Message + Name>(name: &str, config: &T) -> TypedExtensionConfig {
    TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(pack(config)),
    }
}

/// `udpa.type.v1.TypedStruct` of a message given in JSON form, with keys in a fixed order.
pub fn typed_struct(message: &str, value: &Json) -> Any {
    let mut out = Vec::new();
    let url = format!("{}{message}", type_url::PREFIX);
    put_bytes(1, url.as_bytes(), &mut out);
    put_bytes(2, &struct_bytes(value), &mut out);
    Any {
        type_url: type_url::UDPA_TYPED_STRUCT.to_owned(),
        value: out,
    }
}

/// `google.protobuf.Struct` bytes of a JSON object, keys sorted; empty for other values.
pub fn struct_bytes(value: &Json) -> Vec<u8> {
    let Json::Object(map) = value else {
        return Vec::new();
    };
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    let mut out = Vec::new();
    for key in keys {
        let mut entry = Vec::new();
        put_bytes(1, key.as_bytes(), &mut entry);
        put_bytes(2, &value_bytes(&map[key]), &mut entry);
        put_bytes(1, &entry, &mut out);
    }
    out
}

/// `google.protobuf.Value` bytes of a JSON value.
fn value_bytes(value: &Json) -> Vec<u8> {
    use prost::encoding::{WireType, encode_key, encode_varint};
    let mut out = Vec::new();
    match value {
        Json::Null => {
            encode_key(1, WireType::Varint, &mut out);
            encode_varint(0, &mut out);
        }
        Json::Number(n) => {
            encode_key(2, WireType::SixtyFourBit, &mut out);
            out.extend_from_slice(&n.as_f64().unwrap_or_default().to_le_bytes());
        }
        Json::String(s) => put_bytes(3, s.as_bytes(), &mut out),
        Json::Bool(b) => {
            encode_key(4, WireType::Varint, &mut out);
            encode_varint(u64::from(*b), &mut out);
        }
        Json::Object(_) => put_bytes(5, &struct_bytes(value), &mut out),
        Json::Array(items) => {
            let mut list = Vec::new();
            for item in items {
                put_bytes(1, &value_bytes(item), &mut list);
            }
            put_bytes(6, &list, &mut out);
        }
    }
    out
}

/// A length-delimited field.
pub fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    use prost::encoding::{WireType, encode_key, encode_varint};
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A `Value` holding text.
pub fn text(value: impl Into<String>) -> Value {
    use lateen_xds_proto::google::protobuf::value::Kind;
    Value {
        kind: Some(Kind::StringValue(value.into())),
    }
}

/// A `Value` holding an object.
pub fn object(fields: Vec<(&str, Value)>) -> Value {
    use lateen_xds_proto::google::protobuf::value::Kind;
    Value {
        kind: Some(Kind::StructValue(structure(fields))),
    }
}

/// A `Value` holding a list.
pub fn list(values: Vec<Value>) -> Value {
    use lateen_xds_proto::ListValue;
    use lateen_xds_proto::google::protobuf::value::Kind;
    Value {
        kind: Some(Kind::ListValue(ListValue { values })),
    }
}

/// A `Struct`.
pub fn structure(fields: Vec<(&str, Value)>) -> Struct {
    Struct {
        fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
    }
}

/// Metadata with one namespace, `istio`, or `None` when there is nothing in it.
pub fn istio_metadata(fields: Vec<(&str, Value)>) -> Option<Metadata> {
    if fields.is_empty() {
        return None;
    }
    let mut m = Metadata::default();
    m.filter_metadata
        .insert("istio".to_owned(), structure(fields));
    Some(m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn struct_bytes_decode_to_the_same_value() {
        let bytes = struct_bytes(&json!({"b": [1, true, null], "a": {"x": "y"}}));
        let s = Struct::decode(bytes.as_slice()).expect("well formed");
        let want = structure(vec![("a", object(vec![("x", text("y"))]))]);
        assert_eq!(s.fields["a"], want.fields["a"]);
        assert_eq!(s.fields.len(), 2);
        assert_eq!(
            struct_bytes(&json!({"a": 1, "b": 2})),
            struct_bytes(&json!({"b": 2, "a": 1}))
        );
    }
}
