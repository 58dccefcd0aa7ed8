//! Pieces all messages share: durations, addresses, percents, structs, files, header edits.
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::access_log::{Command, Op, Template};
use lateen_proxy_core::config::address::{SocketOption, SocketOptionValue};
use lateen_proxy_core::config::{
    Address, AppendAction, CidrRange, Fields, FractionalPercent, HeaderMutation, HeaderMutations,
    Metadata, Name, Value,
};
use lateen_proxy_core::matcher::StringMatcher;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::r#type::v3 as envoy_type;
use lateen_xds_proto::google::protobuf as pb;
use lateen_xds_proto::{Any, json};

use super::shared::name;
use super::{Context, ResourceSource, matcher, secret_source, written};
use crate::error::{At, DecodeError, Result, list, refuse, refuse_set};

/// A duration; negative or absurd ones are refused.
pub(crate) fn duration(d: &pb::Duration) -> Result<Duration> {
    match (u64::try_from(d.seconds), u32::try_from(d.nanos)) {
        (Ok(s), Ok(n)) if n < 1_000_000_000 && s <= 315_576_000_000 => Ok(Duration::new(s, n)),
        _ => refuse("a duration must not be negative"),
    }
}

/// An optional duration of a named field.
pub(crate) fn opt_duration(d: Option<&pb::Duration>, field: &str) -> Result<Option<Duration>> {
    d.map(duration).transpose().at(field)
}

/// An optional duration where zero means off, with a default.
pub(crate) fn timeout(
    d: Option<&pb::Duration>,
    field: &str,
    default: Option<Duration>,
) -> Result<Option<Duration>> {
    Ok(match opt_duration(d, field)? {
        None => default,
        Some(d) if d.is_zero() => None,
        some => some,
    })
}

pub(crate) fn u32_of(v: Option<&pb::UInt32Value>) -> Option<u32> {
    v.map(|v| v.value)
}

pub(crate) fn bool_or(v: Option<&pb::BoolValue>, default: bool) -> bool {
    v.map_or(default, |v| v.value)
}

pub(crate) fn port(value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| DecodeError::new(format!("{value} is no port (0 to 65535)")))
}

/// A required sub-message.
pub(crate) fn need<'a, T>(value: Option<&'a T>, field: &str) -> Result<&'a T> {
    value.ok_or_else(|| DecodeError::new("is required").within(field))
}

/// Any address.
pub(crate) fn address(a: &core::Address) -> Result<Address> {
    use core::address::Address as A;
    match a.address.as_ref() {
        Some(A::SocketAddress(s)) => socket_address(s).at("socket_address"),
        Some(A::Pipe(p)) if p.mode != 0 => refuse("is not implemented").at("pipe.mode"),
        Some(A::Pipe(p)) => pipe(&p.path).at("pipe.path"),
        Some(A::EnvoyInternalAddress(i)) => match &i.address_name_specifier {
            Some(core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(name)) => {
                Ok(Address::Internal(name.as_str().into()))
            }
            None => refuse("server_listener_name is required").at("envoy_internal_address"),
        },
        None => refuse("an address is required"),
    }
}

/// The address of a socket of this process, which is made and may have a mode.
pub(crate) fn own_address(a: &core::Address) -> Result<Address> {
    match a.address.as_ref() {
        Some(core::address::Address::Pipe(p)) => pipe(&p.path).at("pipe.path"),
        _ => address(a),
    }
}

/// The permissions of the file that a Unix socket of this process gets; 0 = the system's.
pub(crate) fn pipe_mode(a: Option<&core::Address>) -> Result<u32> {
    let Some(core::address::Address::Pipe(p)) = a.and_then(|a| a.address.as_ref()) else {
        return Ok(0);
    };
    if p.mode > 0o777 {
        return refuse("must be at most 511 (0777)").at("pipe.mode");
    }
    if p.mode != 0 && p.path.starts_with('@') {
        return refuse("an abstract socket has no file").at("pipe.mode");
    }
    Ok(p.mode)
}

/// Most bytes of a Unix socket's name: `sockaddr_un` has 108, one of them for the end.
const MOST_PIPE: usize = 107;

fn pipe(path: &str) -> Result<Address> {
    if path.is_empty() {
        return refuse("is required");
    }
    if path.len() > MOST_PIPE {
        let length = path.len();
        return refuse(format!(
            "is {length} bytes; a Unix socket's name has at most {MOST_PIPE}"
        ));
    }
    if path.bytes().skip(1).any(|b| b == 0) {
        return refuse("holds a NUL");
    }
    Ok(Address::Pipe(path.into()))
}

fn socket_address(s: &core::SocketAddress) -> Result<Address> {
    if s.protocol == core::socket_address::Protocol::Udp as i32 {
        return refuse("UDP is not supported").at("protocol");
    }
    refuse_set(&[
        (!s.resolver_name.is_empty(), "resolver_name"),
        (s.ipv4_compat, "ipv4_compat"),
        (
            !s.network_namespace_filepath.is_empty(),
            "network_namespace_filepath",
        ),
    ])?;
    let port = match &s.port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(p)) => port(*p).at("port_value")?,
        Some(core::socket_address::PortSpecifier::NamedPort(_)) => {
            return refuse("is not supported").at("named_port");
        }
        None => return refuse("is required").at("port_value"),
    };
    if s.address.is_empty() {
        return refuse("is required").at("address");
    }
    refuse_set(&[
        (!s.resolver_name.is_empty(), "resolver_name"),
        (
            !s.network_namespace_filepath.is_empty(),
            "network_namespace_filepath",
        ),
    ])?;
    Ok(match s.address.parse::<IpAddr>() {
        Ok(ip) => Address::Socket(SocketAddr::new(ip, port)),
        Err(_) => Address::Host {
            host: s.address.as_str().into(),
            port,
        },
    })
}

/// An IP address with port; host names are refused.
pub(crate) fn ip_socket_address(s: &core::SocketAddress) -> Result<SocketAddr> {
    match socket_address(s)? {
        Address::Socket(addr) => Ok(addr),
        _ => refuse(format!("`{}` is no IP address", s.address)).at("address"),
    }
}

pub(crate) fn cidr(range: &core::CidrRange) -> Result<CidrRange> {
    let ip: IpAddr = range.address_prefix.parse().map_err(|_| {
        DecodeError::new(format!("`{}` is no IP address", range.address_prefix))
            .within("address_prefix")
    })?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    // An absent length means 0, as in Envoy.
    let len = range.prefix_len.as_ref().map_or(0, |l| l.value);
    let len = u8::try_from(len).ok().filter(|l| *l <= most);
    let len = len
        .ok_or_else(|| DecodeError::new(format!("must be at most {most}")).within("prefix_len"))?;
    let net = ipnet_of(ip, len)?;
    Ok(CidrRange(net))
}

fn ipnet_of(ip: IpAddr, len: u8) -> Result<ipnet::IpNet> {
    ipnet::IpNet::new(ip, len).map_err(|e| DecodeError::new(e.to_string()))
}

pub(crate) fn fractional(p: &envoy_type::FractionalPercent) -> Result<FractionalPercent> {
    use envoy_type::fractional_percent::DenominatorType as D;
    let denominator = match D::try_from(p.denominator) {
        Ok(D::Hundred) => 100,
        Ok(D::TenThousand) => 10_000,
        Ok(D::Million) => 1_000_000,
        Err(_) => return refuse(format!("{} is no denominator", p.denominator)).at("denominator"),
    };
    Ok(FractionalPercent {
        numerator: p.numerator,
        denominator,
    })
}

pub(crate) fn runtime_fractional(p: &core::RuntimeFractionalPercent) -> Result<FractionalPercent> {
    p.default_value
        .as_ref()
        .map_or(Ok(FractionalPercent::ALL), |v| {
            fractional(v).at("default_value")
        })
}

pub(crate) fn percent(p: Option<&envoy_type::Percent>, field: &str, default: f64) -> Result<f64> {
    match p.map_or(default, |p| p.value) {
        value if (0.0..=100.0).contains(&value) => Ok(value),
        value => refuse(format!("{value} is no share of 100: 0 to 100")).at(field),
    }
}

/// A protobuf struct as a metadata value.
#[must_use]
pub fn struct_to_value(s: &pb::Struct) -> Value {
    Value::Struct(s.fields.iter().map(|(k, v)| (name(k), value(v))).collect())
}

fn value(v: &pb::Value) -> Value {
    use pb::value::Kind;
    match &v.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(b)) => Value::Bool(*b),
        Some(Kind::NumberValue(n)) => Value::Number(*n),
        Some(Kind::StringValue(s)) => Value::String(name(s)),
        Some(Kind::ListValue(l)) => Value::List(l.values.iter().map(value).collect()),
        Some(Kind::StructValue(s)) => struct_to_value(s),
    }
}

/// A protobuf struct as JSON.
#[must_use]
pub fn struct_to_json(s: &pb::Struct) -> serde_json::Value {
    value_to_json(&struct_to_value(s))
}

fn value_to_json(v: &Value) -> serde_json::Value {
    match v {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        // Whole numbers keep their integer form, so that integer fields of a TypedStruct read them.
        Value::Number(n) if n.fract() == 0.0 && n.abs() < 9.0e15 => (*n as i64).into(),
        Value::Number(n) => {
            serde_json::Number::from_f64(*n).map_or(serde_json::Value::Null, Into::into)
        }
        Value::String(s) => s.to_string().into(),
        Value::List(l) => l.iter().map(value_to_json).collect(),
        Value::Struct(m) => m
            .iter()
            .map(|(k, v)| (k.to_string(), value_to_json(v)))
            .collect(),
    }
}

/// A metadata value as a protobuf struct; what is no object has no fields.
pub(crate) fn value_to_struct(value: &Value) -> pb::Struct {
    json_to_struct(&value_to_json(value))
}

/// JSON as a protobuf value tree.
pub(crate) fn json_to_struct(value: &serde_json::Value) -> pb::Struct {
    let fields = value.as_object().into_iter().flatten();
    pb::Struct {
        fields: fields.map(|(k, v)| (k.clone(), json_to_value(v))).collect(),
    }
}

fn json_to_value(value: &serde_json::Value) -> pb::Value {
    use pb::value::Kind;
    use serde_json::Value as J;
    let kind = match value {
        J::Null => Kind::NullValue(0),
        J::Bool(b) => Kind::BoolValue(*b),
        J::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(0.0)),
        J::String(s) => Kind::StringValue(s.clone()),
        J::Array(l) => Kind::ListValue(pb::ListValue {
            values: l.iter().map(json_to_value).collect(),
        }),
        J::Object(_) => Kind::StructValue(json_to_struct(value)),
    };
    pb::Value { kind: Some(kind) }
}

pub(crate) fn metadata(m: Option<&core::Metadata>) -> Metadata {
    let all: Fields = m
        .into_iter()
        .flat_map(|m| &m.filter_metadata)
        .map(|(k, v)| (name(k), struct_to_value(v)))
        .collect();
    Metadata::from(all)
}

/// Takes `udpa.type.v1.TypedStruct` or `xds.type.v3.TypedStruct` off an `Any`.
pub(crate) fn unwrap_typed_struct(any: &Any) -> Result<Cow<'_, Any>> {
    use lateen_xds_proto::any::{is, unpack};
    use lateen_xds_proto::typed_struct::{udpa, xds};
    let (type_url, value) = if is::<udpa::TypedStruct>(any) {
        let t: udpa::TypedStruct = unpack(any)?;
        (t.type_url, t.value)
    } else if is::<xds::TypedStruct>(any) {
        let t: xds::TypedStruct = unpack(any)?;
        (t.type_url, t.value)
    } else {
        return Ok(Cow::Borrowed(any));
    };
    let name = lateen_xds_proto::type_url::message_name(&type_url);
    if !json::knows(name) {
        return refuse(format!("unknown extension type {name:?}"));
    }
    let options = json::ParseOptions {
        allow_unknown: true,
        ..json::ParseOptions::default()
    };
    let json = struct_to_json(&value.unwrap_or_default());
    let parsed = json::to_wire_with(name, &json, &options)
        .map_err(DecodeError::from)
        .at("value")?;
    Ok(Cow::Owned(lateen_xds_proto::any::pack_wire(
        name,
        parsed.wire,
    )))
}

/// The bytes of a data source and the file they came from.
pub(crate) fn data_source(
    s: &core::DataSource,
    context: &Context,
) -> Result<(Arc<[u8]>, Option<Name>)> {
    use core::data_source::Specifier as S;
    match &s.specifier {
        Some(S::InlineBytes(b)) => Ok((b.as_slice().into(), None)),
        Some(S::InlineString(t)) => Ok((t.as_bytes().into(), None)),
        Some(S::Filename(path)) => match (context.read_file)(path) {
            Ok(bytes) => Ok((bytes.into(), Some(path.as_str().into()))),
            Err(e) => refuse(format!("{path}: {e}")).at("filename"),
        },
        Some(S::EnvironmentVariable(name)) => match (context.environment)(name) {
            Some(text) => Ok((text.into_bytes().into(), None)),
            None => refuse(format!("{name} is not set")).at("environment_variable"),
        },
        None => refuse("one of filename, inline_bytes, inline_string is required"),
    }
}

/// The bytes of an optional data source.
pub(crate) fn data_source_bytes(
    s: Option<&core::DataSource>,
    context: &Context,
) -> Result<Arc<[u8]>> {
    s.map_or_else(
        || Ok(Arc::from([])),
        |s| data_source(s, context).map(|(b, _)| b),
    )
}

/// Lower-cases and checks a header name.
pub(crate) fn header_name(name: &str) -> Result<Name> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(&b);
    if name.is_empty() || !name.bytes().all(valid) {
        return refuse(format!("`{name}` is no header name"));
    }
    Ok(name.to_ascii_lowercase().into())
}

pub(crate) fn header_names(names: &[String], field: &str) -> Result<Vec<Name>> {
    list(names, field, |n| header_name(n))
}

/// A header to write.
pub(crate) fn header_option(option: &core::HeaderValueOption) -> Result<HeaderMutation> {
    use core::header_value_option::HeaderAppendAction as A;
    let header = need(option.header.as_ref(), "header")?;
    let name = header_name(&header.key).at("key").at("header")?;
    if written::is_reserved(&name) {
        return refuse(":-prefixed or host headers may not be modified")
            .at("key")
            .at("header");
    }
    refuse_set(&[(
        !header.value.is_empty() && !header.raw_value.is_empty(),
        "header.raw_value",
    )])?;
    let text = if header.value.is_empty() && !header.raw_value.is_empty() {
        std::str::from_utf8(&header.raw_value)
            .map_err(|_| DecodeError::new("must be UTF-8").within("header.raw_value"))?
    } else {
        &header.value
    };
    written::value(text).at("header.value")?;
    let action = match (
        option.append.as_ref().map(|v| v.value),
        A::try_from(option.append_action),
    ) {
        (Some(true), _) => AppendAction::AppendIfExistsOrAdd,
        (Some(false), _) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Ok(A::AppendIfExistsOrAdd)) => AppendAction::AppendIfExistsOrAdd,
        (None, Ok(A::AddIfAbsent)) => AppendAction::AddIfAbsent,
        (None, Ok(A::OverwriteIfExistsOrAdd)) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Ok(A::OverwriteIfExists)) => AppendAction::OverwriteIfExists,
        (None, Err(_)) => return refuse("is no known action").at("append_action"),
    };
    let template = Template::parse(text).map_err(DecodeError::from);
    let template = template.at("value").at("header")?;
    let of_environment = |op: &Op| matches!(op, Op::Command(Command::Environment(_), _));
    if template.ops().iter().any(of_environment) {
        return refuse("`%ENVIRONMENT()%` is not implemented in headers")
            .at("value")
            .at("header");
    }
    let value = Arc::new(template);
    Ok(HeaderMutation {
        name,
        value,
        action,
        keep_empty: option.keep_empty_value,
    })
}

/// The header edits of one level.
pub(crate) fn header_mutations(
    request_add: &[core::HeaderValueOption],
    request_remove: &[String],
    response_add: &[core::HeaderValueOption],
    response_remove: &[String],
) -> Result<HeaderMutations> {
    let edits = HeaderMutations {
        request_add: list(request_add, "request_headers_to_add", header_option)?,
        request_remove: header_names(request_remove, "request_headers_to_remove")?,
        response_add: list(response_add, "response_headers_to_add", header_option)?,
        response_remove: header_names(response_remove, "response_headers_to_remove")?,
    };
    for (names, field) in [
        (&edits.request_remove, "request_headers_to_remove"),
        (&edits.response_remove, "response_headers_to_remove"),
    ] {
        if let Some(i) = names.iter().position(|name| written::is_reserved(name)) {
            return refuse(":-prefixed or host headers may not be removed").item(field, i);
        }
    }
    Ok(edits)
}

pub(crate) fn socket_option(option: &core::SocketOption) -> Result<SocketOption> {
    use core::socket_option::Value as V;
    refuse_set(&[
        // Options are set before a socket is bound.
        (option.state != 0, "state"),
        (option.r#type.is_some(), "type"),
        (option.ip_version != 0, "ip_version"),
    ])?;
    let int = |n: i64, field: &str| {
        i32::try_from(n).map_err(|_| DecodeError::new("is out of range").within(field))
    };
    Ok(SocketOption {
        level: int(option.level, "level")?,
        name: int(option.name, "name")?,
        value: match option.value.as_ref() {
            Some(V::IntValue(n)) => SocketOptionValue::Int(int(*n, "int_value")?),
            Some(V::BufValue(b)) => SocketOptionValue::Bytes(b.clone()),
            None => return refuse("a value is required"),
        },
    })
}

/// String matchers of a list message.
pub(crate) fn string_matcher_list(
    matchers: &[lateen_xds_proto::envoy::r#type::matcher::v3::StringMatcher],
) -> Result<Vec<StringMatcher>> {
    list(matchers, "patterns", matcher::string)
}

/// Where endpoints or routes come from, and their fetch timeout in milliseconds: ADS (and `self`)
/// or a file.
pub(crate) fn config_source(
    source: Option<&core::ConfigSource>,
    context: &Context,
) -> Result<(ResourceSource, u64)> {
    use core::config_source::ConfigSourceSpecifier as S;
    let source = need(source, "config_source")?;
    match &source.config_source_specifier {
        Some(S::ApiConfigSource(_)) => {
            refuse("is not implemented; use `ads`").at("api_config_source")
        }
        _ => secret_source::source(source, context),
    }
}

/// Version 3 of the API is the only one there is; no authorities (xdstp names) are known.
pub(crate) fn only_v3(source: &core::ConfigSource) -> Result<()> {
    refuse_set(&[
        (!source.authorities.is_empty(), "authorities"),
        (
            source.resource_api_version == core::ApiVersion::V2 as i32,
            "resource_api_version",
        ),
    ])
}

/// `initial_fetch_timeout` in milliseconds; 15 s by default, 0 = for ever.
pub(crate) fn fetch_timeout(source: &core::ConfigSource) -> Result<u64> {
    let timeout = opt_duration(
        source.initial_fetch_timeout.as_ref(),
        "initial_fetch_timeout",
    )?;
    Ok(timeout.map_or(15_000, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}
