//! Access logs as mesh configuration asks for them: a file, in Istio's text or JSON form.

use lateen_model::mesh::AccessLogEncoding;
use lateen_xds_proto::Any;
use lateen_xds_proto::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, ResponseFlagFilter, access_log, access_log_filter,
};
use lateen_xds_proto::type_url;
use serde_json::{Value, json};

use crate::context::Context;
use crate::wire;

/// Istio's default text line.
pub const TEXT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% ",
    "%CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" ",
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ",
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" ",
    "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

/// Keys and operators of Istio's default JSON form.
const JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    (
        "upstream_service_time",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
];

/// The access logs of a connection manager or TCP proxy.
pub fn access_logs(cx: &Context<'_>) -> Vec<AccessLog> {
    file_log(cx).into_iter().collect()
}

/// The access logs of a listener: connections that no filter chain took.
pub fn listener_logs(cx: &Context<'_>) -> Vec<AccessLog> {
    let mut log = file_log(cx);
    if let Some(log) = &mut log {
        log.filter = Some(AccessLogFilter {
            filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(
                ResponseFlagFilter {
                    flags: vec!["NR".to_owned()],
                },
            )),
        });
    }
    log.into_iter().collect()
}

fn file_log(cx: &Context<'_>) -> Option<AccessLog> {
    let mesh = &cx.snapshot.mesh;
    if mesh.access_log_file.is_empty() {
        return None;
    }
    let format = match mesh.access_log_encoding {
        AccessLogEncoding::Text if mesh.access_log_format.is_empty() => text_format(TEXT),
        AccessLogEncoding::Text => text_format(&mesh.access_log_format),
        AccessLogEncoding::Json => json_format(&json_keys(&mesh.access_log_format)),
    };
    let mut value = Vec::new();
    wire::put_bytes(1, mesh.access_log_file.as_bytes(), &mut value);
    wire::put_bytes(5, &format, &mut value);
    Some(AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: None,
        config_type: Some(access_log::ConfigType::TypedConfig(Any {
            type_url: type_url::FILE_ACCESS_LOG.to_owned(),
            value,
        })),
    })
}

/// The JSON form of a custom format, or Istio's where there is none or it is no object.
fn json_keys(custom: &str) -> Value {
    match serde_json::from_str::<Value>(custom) {
        Ok(v @ Value::Object(_)) => v,
        _ => JSON
            .iter()
            .map(|(k, v)| ((*k).to_owned(), json!(v)))
            .collect(),
    }
}

/// `SubstitutionFormatString{text_format_source{inline_string}}` bytes.
fn text_format(format: &str) -> Vec<u8> {
    let mut source = Vec::new();
    wire::put_bytes(3, format.as_bytes(), &mut source);
    let mut out = Vec::new();
    wire::put_bytes(5, &source, &mut out);
    out
}

/// `SubstitutionFormatString{json_format}` bytes, keys in a fixed order.
fn json_format(format: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(2, &wire::struct_bytes(format), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_model::{EndpointTable, ProxyKey, Snapshot};
    use lateen_xds_proto::any::unpack;
    use lateen_xds_proto::envoy::config::core::v3::{data_source, substitution_format_string};
    use lateen_xds_proto::envoy::extensions::access_loggers::file::v3::{
        FileAccessLog, file_access_log,
    };

    fn log(encoding: AccessLogEncoding) -> substitution_format_string::Format {
        let mut snapshot = Snapshot::default();
        snapshot.mesh.access_log_file = "/dev/stdout".into();
        snapshot.mesh.access_log_encoding = encoding;
        let (table, key) = (EndpointTable::default(), ProxyKey::default());
        let cx = Context::new(&snapshot, &table, &key, Default::default());
        let log = access_logs(&cx).remove(0);
        let Some(access_log::ConfigType::TypedConfig(any)) = log.config_type else {
            panic!("typed");
        };
        let file: FileAccessLog = unpack(&any).expect("a file log");
        assert_eq!(file.path, "/dev/stdout");
        let Some(file_access_log::AccessLogFormat::LogFormat(f)) = file.access_log_format else {
            panic!("log_format");
        };
        f.format.expect("a format")
    }

    #[test]
    fn both_forms_decode_as_the_real_message() {
        match log(AccessLogEncoding::Text) {
            substitution_format_string::Format::TextFormatSource(s) => {
                assert_eq!(
                    s.specifier,
                    Some(data_source::Specifier::InlineString(TEXT.into()))
                );
            }
            other => panic!("{other:?}"),
        }
        match log(AccessLogEncoding::Json) {
            substitution_format_string::Format::JsonFormat(s) => assert_eq!(s.fields.len(), 24),
            other => panic!("{other:?}"),
        }
    }
}
