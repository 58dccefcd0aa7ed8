//! Access loggers, their formats and filters.
use std::sync::Arc;

use lateen_proxy_core::access_log::{ENVOY_DEFAULT_TEXT, Format, JsonNode, Template};
use lateen_proxy_core::config::access_log::Comparison;
use lateen_proxy_core::config::{AccessLog, AccessLogFilter, AccessLogSink};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::local_reply::BodyFormat;
use lateen_xds_proto::envoy::config::accesslog::v3 as pb;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::access_loggers::{file::v3 as file, stream::v3 as stream};
use lateen_xds_proto::google::protobuf::Struct;

use super::common::{data_source_bytes, fractional, need, struct_to_value};
use super::{Context, matcher, type_name, typed, written};
use crate::error::{At, DecodeError, Result, list, refuse};

pub(super) fn loggers(logs: &[pb::AccessLog], context: &Context) -> Result<Vec<AccessLog>> {
    list(logs, "access_log", |log| logger(log, context))
}

fn logger(m: &pb::AccessLog, context: &Context) -> Result<AccessLog> {
    let Some(pb::access_log::ConfigType::TypedConfig(any)) = &m.config_type else {
        return refuse("is required").at("typed_config");
    };
    let (sink, format) = match type_name(any)?.as_str() {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let log: file::FileAccessLog = typed(any).at("typed_config")?;
            let format = file_format(&log, context).at("typed_config")?;
            let sink = match log.path.as_str() {
                "" => return refuse("is required").at("path").at("typed_config"),
                "/dev/stdout" => AccessLogSink::Stdout,
                "/dev/stderr" => AccessLogSink::Stderr,
                path => {
                    if let Err(error) = (context.open_log)(path) {
                        return refuse(format!("{path} cannot be opened: {error}"))
                            .at("path")
                            .at("typed_config");
                    }
                    AccessLogSink::File(path.into())
                }
            };
            (sink, format)
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let log: stream::StdoutAccessLog = typed(any).at("typed_config")?;
            let format = log.access_log_format.map(|f| match f {
                stream::stdout_access_log::AccessLogFormat::LogFormat(f) => f,
            });
            (
                AccessLogSink::Stdout,
                optional_format(format.as_ref(), context)?,
            )
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let log: stream::StderrAccessLog = typed(any).at("typed_config")?;
            let format = log.access_log_format.map(|f| match f {
                stream::stderr_access_log::AccessLogFormat::LogFormat(f) => f,
            });
            (
                AccessLogSink::Stderr,
                optional_format(format.as_ref(), context)?,
            )
        }
        other => {
            return refuse(format!(
                "access logger {other} ({}) is not implemented",
                m.name
            ))
            .at("typed_config");
        }
    };
    let filter = m.filter.as_ref().map(filter).transpose().at("filter")?;
    Ok(AccessLog {
        sink,
        format: Arc::new(format),
        filter,
    })
}

fn file_format(log: &file::FileAccessLog, context: &Context) -> Result<Format> {
    use file::file_access_log::AccessLogFormat as F;
    match log.access_log_format.as_ref() {
        None => default_format(),
        Some(F::Format(text)) if text.is_empty() => default_format(),
        Some(F::Format(text)) => text_format(text, false, context).at("format"),
        Some(F::JsonFormat(json)) => json_format(json, false, context).at("json_format"),
        Some(F::TypedJsonFormat(json)) => json_format(json, false, context).at("typed_json_format"),
        Some(F::LogFormat(format)) => substitution_format(format, context).at("log_format"),
    }
}

fn default_format() -> Result<Format> {
    Ok(Format::text(ENVOY_DEFAULT_TEXT, false)?)
}

fn optional_format(
    format: Option<&core::SubstitutionFormatString>,
    context: &Context,
) -> Result<Format> {
    format.map_or_else(default_format, |f| {
        substitution_format(f, context)
            .at("log_format")
            .at("typed_config")
    })
}

fn text_format(text: &str, omit_empty: bool, context: &Context) -> Result<Format> {
    let mut template = Template::parse(text)?;
    template.resolve(&context.environment);
    Ok(Format::Text {
        template,
        omit_empty,
    })
}

fn json_format(json: &Struct, omit_empty: bool, context: &Context) -> Result<Format> {
    let mut root = JsonNode::parse(&struct_to_value(json))?;
    root.resolve(&context.environment);
    Ok(Format::Json { root, omit_empty })
}

pub(super) fn substitution_format(
    m: &core::SubstitutionFormatString,
    context: &Context,
) -> Result<Format> {
    use core::substitution_format_string::Format as F;
    for (i, formatter) in m.formatters.iter().enumerate() {
        // These two only add operators that are built in here, or none.
        let known = ["envoy.formatter.metadata", "envoy.formatters.metadata"];
        if !known.contains(&formatter.name.as_str()) {
            return refuse(format!(
                "formatter extension {} is not implemented",
                formatter.name
            ))
            .item("formatters", i);
        }
    }
    let omit = m.omit_empty_values;
    match m.format.as_ref() {
        Some(F::TextFormat(text)) => text_format(text, omit, context).at("text_format"),
        Some(F::JsonFormat(json)) => json_format(json, omit, context).at("json_format"),
        Some(F::TextFormatSource(source)) => {
            let bytes = data_source_bytes(Some(source), context).at("text_format_source")?;
            let text = std::str::from_utf8(&bytes)
                .map_err(|_| DecodeError::new("must be UTF-8").within("text_format_source"))?;
            text_format(text, omit, context).at("text_format_source")
        }
        None => refuse("a format is required"),
    }
}

pub(super) fn body_format(
    m: &core::SubstitutionFormatString,
    context: &Context,
) -> Result<BodyFormat> {
    let format = substitution_format(m, context)?;
    let default = if matches!(format, Format::Json { .. }) {
        "application/json"
    } else {
        "text/plain"
    };
    let content_type = if m.content_type.is_empty() {
        default
    } else {
        &m.content_type
    };
    Ok(BodyFormat {
        format: Arc::new(format),
        content_type: written::value(content_type).at("content_type")?,
    })
}

pub(super) fn filter(m: &pb::AccessLogFilter) -> Result<AccessLogFilter> {
    use pb::access_log_filter::FilterSpecifier as S;
    Ok(match m.filter_specifier.as_ref() {
        Some(S::StatusCodeFilter(f)) => {
            let (op, value) = comparison(f.comparison.as_ref()).at("status_code_filter")?;
            AccessLogFilter::StatusCode(op, value)
        }
        Some(S::DurationFilter(f)) => {
            let (op, value) = comparison(f.comparison.as_ref()).at("duration_filter")?;
            AccessLogFilter::Duration(op, value)
        }
        Some(S::NotHealthCheckFilter(_)) => AccessLogFilter::NotHealthCheck,
        Some(S::TraceableFilter(_)) => AccessLogFilter::Traceable,
        Some(S::RuntimeFilter(f)) => {
            let share = need(f.percent_sampled.as_ref(), "percent_sampled").at("runtime_filter")?;
            AccessLogFilter::Runtime(fractional(share).at("runtime_filter.percent_sampled")?)
        }
        Some(S::AndFilter(f)) => {
            AccessLogFilter::And(list(&f.filters, "and_filter.filters", filter)?)
        }
        Some(S::OrFilter(f)) => AccessLogFilter::Or(list(&f.filters, "or_filter.filters", filter)?),
        Some(S::HeaderFilter(f)) => {
            let header = need(f.header.as_ref(), "header").at("header_filter")?;
            AccessLogFilter::Header(Box::new(
                matcher::header(header).at("header_filter.header")?,
            ))
        }
        Some(S::ResponseFlagFilter(f)) => {
            let mut flags = ResponseFlags::NONE;
            for (i, name) in f.flags.iter().enumerate() {
                match ResponseFlags::from_short(name) {
                    Some(flag) => flags.set(flag),
                    None => {
                        return refuse(format!("`{name}` is no response flag"))
                            .item("flags", i)
                            .at("response_flag_filter");
                    }
                }
            }
            AccessLogFilter::ResponseFlag(flags)
        }
        Some(S::GrpcStatusFilter(f)) => AccessLogFilter::GrpcStatus {
            statuses: f
                .statuses
                .iter()
                .filter_map(|s| u32::try_from(*s).ok())
                .collect(),
            exclude: f.exclude,
        },
        Some(S::ExtensionFilter(f)) => {
            return refuse(format!("access log filter {} is not implemented", f.name))
                .at("extension_filter");
        }
        Some(S::MetadataFilter(_)) => return refuse("is not implemented").at("metadata_filter"),
        Some(S::LogTypeFilter(f)) => AccessLogFilter::LogType {
            types: list(&f.types, "log_type_filter.types", |t| log_type(*t))?,
            exclude: f.exclude,
        },
        None => return refuse("a filter is required"),
    })
}

/// The name that `%ACCESS_LOG_TYPE%` has for a type.
fn log_type(number: i32) -> Result<&'static str> {
    use lateen_xds_proto::envoy::data::accesslog::v3::AccessLogType as T;
    Ok(match T::try_from(number) {
        Ok(T::TcpUpstreamConnected) => "TcpUpstreamConnected",
        Ok(T::TcpPeriodic) => "TcpPeriodic",
        Ok(T::TcpConnectionEnd) => "TcpConnectionEnd",
        Ok(T::DownstreamStart) => "DownstreamStart",
        Ok(T::DownstreamPeriodic) => "DownstreamPeriodic",
        Ok(T::DownstreamEnd) => "DownstreamEnd",
        Ok(T::UpstreamPoolReady) => "UpstreamPoolReady",
        Ok(T::UpstreamPeriodic) => "UpstreamPeriodic",
        Ok(T::UpstreamEnd) => "UpstreamEnd",
        Ok(T::DownstreamTunnelSuccessfullyEstablished) => "DownstreamTunnelSuccessfullyEstablished",
        Ok(_) => "NotSet",
        Err(_) => return refuse(format!("{number} is no known log type")),
    })
}

fn comparison(m: Option<&pb::ComparisonFilter>) -> Result<(Comparison, u32)> {
    use pb::comparison_filter::Op;
    let m = need(m, "comparison")?;
    let op = match Op::try_from(m.op) {
        Ok(Op::Eq) => Comparison::Eq,
        Ok(Op::Ge) => Comparison::Ge,
        Ok(Op::Le) => Comparison::Le,
        Ok(Op::Ne) => Comparison::Ne,
        Err(_) => return refuse("is no known comparison").at("op").at("comparison"),
    };
    let value = need(m.value.as_ref(), "value").at("comparison")?;
    Ok((op, value.default_value))
}
