//! Discovery responses in files: which file a subscription names, and what it holds, as YAML, JSON or
//! protobuf bytes. What is wrong with one is said with its line and field.
use lateen_proxy_core::config::bootstrap::WatchedFile;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::service::discovery::v3::DiscoveryResponse;
use lateen_xds_proto::{Message, json};

use super::Context;
use crate::error::{At, Result, refuse};
use crate::locate;

const MESSAGE: &str = "envoy.service.discovery.v3.DiscoveryResponse";

/// The file that a config source names, if it names one.
pub(crate) fn watched(m: &core::ConfigSource) -> Result<Option<WatchedFile>> {
    use core::config_source::ConfigSourceSpecifier as S;
    let (path, directory) = match &m.config_source_specifier {
        Some(S::Path(path)) => (path, None),
        Some(S::PathConfigSource(from)) => {
            let directory = from.watched_directory.as_ref();
            if directory.is_some_and(|d| d.path.is_empty()) {
                return refuse("is required")
                    .at("watched_directory.path")
                    .at("path_config_source");
            }
            if from.path.is_empty() {
                return refuse("is required").at("path_config_source.path");
            }
            (&from.path, directory)
        }
        _ => return Ok(None),
    };
    Ok(Some(WatchedFile {
        path: path.as_str().into(),
        directory: directory.map(|d| d.path.as_str().into()),
        written: directory.is_some_and(|d| d.watch_modify),
    }))
}

/// Reads a file with a discovery response. What begins as JSON is read as that, all else as YAML,
/// whatever its name; `.pb` is protobuf's wire form.
///
/// # Errors
/// What is wrong, with the file, the line and the field.
pub(crate) fn read(
    path: &str,
    context: &Context,
) -> std::result::Result<DiscoveryResponse, String> {
    let bytes = (context.read_file)(path).map_err(|e| format!("{path}: {e}"))?;
    parse(path, &bytes)
}

fn parse(path: &str, bytes: &[u8]) -> std::result::Result<DiscoveryResponse, String> {
    if path.ends_with(".pb") {
        return DiscoveryResponse::decode(bytes).map_err(|e| format!("{path}: {e}"));
    }
    if path.ends_with(".pb_text") {
        return Err(format!(
            "{path}: protobuf's text form is not implemented; write YAML or JSON"
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| format!("{path}: is not UTF-8"))?;
    let value = crate::text::value(text).map_err(|problem| format!("{path}: {problem}"))?;
    if !value.is_object() {
        return Err(format!(
            "{path}: a discovery response is a map with `version_info` and `resources`"
        ));
    }
    let options = json::ParseOptions {
        loose: true,
        ..json::ParseOptions::default()
    };
    let parsed = json::to_wire_with(MESSAGE, &value, &options).map_err(|e| {
        let line = locate::line(text, &e.path).map_or(String::new(), |line| format!(":{line}"));
        format!("{path}{line}: {e}")
    })?;
    DiscoveryResponse::decode(&parsed.wire[..]).map_err(|e| format!("{path}: {e}"))
}

/// Whether a file's text can be read as YAML or JSON at all.
pub(crate) fn is_text(path: &str, context: &Context) -> bool {
    let text = (context.read_file)(path).ok();
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
    text.is_some_and(|text| crate::text::value(&text).is_ok())
}

/// Where in a file's text the field of a resource stands, as `:line`; nothing where that is not known.
pub(crate) fn line_of(path: &str, field: &str, context: &Context) -> String {
    let text = (context.read_file)(path).ok();
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
    let line = text.and_then(|text| locate::line(&text, field));
    line.map_or(String::new(), |line| format!(":{line}"))
}
