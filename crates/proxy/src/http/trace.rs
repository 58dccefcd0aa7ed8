//! The trace of a request: decided when its route is known, passed on with each
//! try, told to the collector when the request's record is closed.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use lateen_proxy_core::access_log::Record as _;
use lateen_proxy_core::config::listener::TrafficDirection;
use lateen_proxy_core::config::tracing::{CustomTag, Provider, RouteTracing, Sampling};
use lateen_proxy_core::config::{HttpConnectionManager, Name};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::request_id::{self, TraceReason};
use lateen_proxy_core::router::is_grpc;
use lateen_proxy_core::trace::{self, Form, Kind, Span, SpanContext};

use super::attempt::Attempt;
use super::head::Head;
use super::known::Known;
use super::record::{StreamRecord, now_ns};
use super::stream::{Chosen, Stream};
use crate::stats::rare::{Rare, TracingEvent};
use crate::trace::Tracer;

type Tags = Vec<(Cow<'static, str>, String)>;

/// The spans of a request.
#[derive(Debug)]
pub struct Trace {
    tracer: Rc<Tracer>,
    config: Arc<HttpConnectionManager>,
    /// What the route says.
    of_route: Option<Arc<RouteTracing>>,
    /// The request's own span.
    pub context: SpanContext,
    /// The span's id is told to log lines.
    pub names_span: bool,
    forms: &'static [Form],
    shared: bool,
    client: bool,
    operation: Name,
    tries: Vec<TrySpan>,
}

/// The span of one try.
#[derive(Debug)]
struct TrySpan {
    context: SpanContext,
    start: u64,
    end: u64,
    name: String,
    tags: Tags,
    failed: bool,
}

/// Whether this side sends requests out.
fn is_egress(record: &StreamRecord) -> bool {
    record.conn.listener.traffic_direction == TrafficDirection::Outbound
}

/// Decides, and marks the request id.
fn decide(
    record: &mut StreamRecord,
    sampling: &Sampling,
    packed: bool,
    events: &Rare<TracingEvent>,
) {
    let decision = trace::decide(sampling, &record.request, packed, record.random);
    record.traced = decision.reason != TraceReason::NotTraced;
    events.inc(match decision.reason {
        TraceReason::NotTraced => TracingEvent::not_traceable,
        TraceReason::Sampling => TracingEvent::random_sampling,
        TraceReason::Forced => TracingEvent::service_forced,
        TraceReason::Client => TracingEvent::client_enabled,
    });
    if decision.changed
        && let Some(id) = record.request.known(Known::XRequestId)
        && let Ok(mut id) = <[u8; 36]>::try_from(id)
    {
        request_id::set_trace_reason(&mut id, decision.reason);
        record.request.set_known(Known::XRequestId, &id);
    }
}

/// Begins the trace of a request whose route was looked for.
pub(super) fn begin(stream: &mut Stream<'_>, chosen: Option<&Chosen>) {
    let http = stream.http;
    let Some(config) = &http.config.tracing else {
        return;
    };
    let record = &mut *stream.record;
    let events = http.stats.tracing();
    let of_route = chosen.and_then(|c| c.route.tracing.clone());
    let sampling = of_route.as_ref().map_or(&config.sampling, |t| &t.sampling);
    decide(record, sampling, http.config.pack_trace_reason, events);
    let mut operation = decorate(record, chosen);
    let Some(provider) = &config.provider else {
        return;
    };
    let worker = record.conn.worker.clone();
    let tracer = worker.tracers.get(&worker, provider);
    let egress = is_egress(record);
    if operation.is_empty() {
        operation = match (&**provider, egress) {
            // Zipkin names a span by its host.
            (Provider::Zipkin(_), _) => String::from_utf8_lossy(record.request.authority())
                .into_owned()
                .into(),
            (_, true) => {
                let host = String::from_utf8_lossy(record.request.authority());
                format!("egress {host}").into()
            }
            (_, false) => "ingress".into(),
        };
    }
    // With a span for each try, the request's own is a server's on both sides.
    let client = egress && !config.spawn_upstream_span;
    let begun = context(provider, &record.request, record.traced, client);
    record.trace = begun.map(|(context, forms)| {
        let zipkin = matches!(&**provider, Provider::Zipkin(z) if z.shared_span_context);
        Box::new(Trace {
            tracer,
            config: http.config.clone(),
            of_route,
            context,
            names_span: matches!(&**provider, Provider::OpenTelemetry(_)),
            forms,
            shared: zipkin && !client,
            client,
            operation,
            tries: Vec::new(),
        })
    });
}

/// The operation that the route or the peer names; who is to be told is told.
fn decorate(record: &mut StreamRecord, chosen: Option<&Chosen>) -> Name {
    let decorator = chosen.and_then(|c| c.route.decorator.as_ref());
    let decorator = decorator.filter(|d| !d.operation.is_empty());
    let name = Known::XEnvoyDecoratorOperation;
    if is_egress(record) {
        if let Some(decorator) = decorator.filter(|d| d.propagate) {
            record
                .request
                .set_known(name, decorator.operation.as_bytes());
        }
        return decorator.map(|d| d.operation.clone()).unwrap_or_default();
    }
    let told = record.request.known(name).map(<[u8]>::to_vec);
    record.request.remove_known(name);
    if let Some(told) = told.filter(|told| !told.is_empty()) {
        return String::from_utf8_lossy(&told).into_owned().into();
    }
    let propagated = decorator.filter(|d| d.propagate);
    record.decorated = propagated.map(|d| d.operation.clone());
    decorator.map(|d| d.operation.clone()).unwrap_or_default()
}

/// The operation in the response: the caller is told ours, or tells theirs.
pub(super) fn on_response(record: &mut StreamRecord) {
    let name = Known::XEnvoyDecoratorOperation;
    if let Some(operation) = record.decorated.take() {
        record.response.set_known(name, operation.as_bytes());
    } else if is_egress(record) && record.response.has(name) {
        let told = record.response.known(name).unwrap_or_default();
        let told = String::from_utf8_lossy(told).into_owned();
        record.response.remove_known(name);
        if let Some(trace) = record.trace.as_mut().filter(|_| !told.is_empty()) {
            trace.operation = told.into();
        }
    }
}

/// The request's span: under the caller's, or a new one. `None` = the caller's
/// headers are malformed; such a request has no span.
fn context(
    provider: &Provider,
    head: &Head,
    traced: bool,
    client: bool,
) -> Option<(SpanContext, &'static [Form])> {
    let random = || fastrand::u64(1..);
    let (form, with_w3c, wide, shared) = match provider {
        Provider::Zipkin(z) => (
            Form::B3,
            z.with_w3c,
            z.trace_id_128bit,
            z.shared_span_context,
        ),
        Provider::OpenTelemetry(_) => (Form::W3c, false, true, false),
    };
    let found = trace::extract(head, form, with_w3c)?;
    let forms: &'static [Form] = match (form, found.single, with_w3c) {
        (Form::W3c, ..) => &[Form::W3c],
        (_, true, false) => &[Form::B3Single],
        (_, false, false) => &[Form::B3],
        (_, true, true) => &[Form::B3Single, Form::W3cParent],
        (_, false, true) => &[Form::B3, Form::W3cParent],
    };
    let mut context = match found.context {
        // A server's side of the span that the client began.
        Some(caller) if shared && !client => caller,
        Some(caller) => SpanContext {
            remote_parent: true,
            ..caller.child(random())
        },
        None => {
            let span_id = random();
            let high = if wide { u128::from(random()) << 64 } else { 0 };
            SpanContext {
                trace_id: high | u128::from(span_id),
                narrow: !wide,
                span_id: if form == Form::W3c { random() } else { span_id },
                ..SpanContext::default()
            }
        }
    };
    context.sampled = match form {
        // What the caller does not sample is not, and what is not traced here neither.
        Form::W3c => traced && found.sampled.unwrap_or(true),
        _ => found.sampled.unwrap_or(traced),
    };
    Some((context, forms))
}

/// Writes the trace into the request of a try.
pub(super) fn before_try(stream: &mut Stream<'_>) {
    let record = &mut *stream.record;
    let Some(trace) = &mut record.trace else {
        return;
    };
    let spawn = trace
        .config
        .tracing
        .as_ref()
        .is_some_and(|t| t.spawn_upstream_span);
    if !spawn {
        if record.attempts < 2 {
            for form in trace.forms {
                trace::inject(&mut record.request, &trace.context, *form);
            }
        }
        return;
    }
    let context = trace.context.child(fastrand::u64(1..));
    for form in trace.forms {
        trace::inject(&mut record.request, &context, *form);
    }
    let cluster = record.cluster.as_ref().map_or("", |c| &*c.config.stat_name);
    trace.tries.push(TrySpan {
        context,
        start: now_ns(),
        end: 0,
        name: format!("router {cluster} egress"),
        tags: Tags::new(),
        failed: false,
    });
}

/// Ends the span of a try.
pub(super) fn after_try(stream: &mut Stream<'_>, attempt: &Attempt) {
    let record = &mut *stream.record;
    let Some(mut trace) = record.trace.take() else {
        return;
    };
    if matches!(attempt, Attempt::NoHost | Attempt::Renew) {
        trace.tries.pop();
    } else if trace.context.sampled
        && let Some(span) = trace.tries.last_mut().filter(|s| s.end == 0)
    {
        span.end = now_ns();
        finish_try(span, record, attempt);
        custom_tags(
            &trace.config,
            trace.of_route.as_deref(),
            &record.request,
            &mut span.tags,
        );
    }
    record.trace = Some(trace);
}

fn finish_try(span: &mut TrySpan, record: &StreamRecord, attempt: &Attempt) {
    let tags = &mut span.tags;
    let mut put = |name: &'static str, value: String| tags.push((Cow::Borrowed(name), value));
    if record.attempts > 1 {
        put("retry.count", (record.attempts - 1).to_string());
    }
    let answered = matches!(attempt, Attempt::Done | Attempt::Again);
    let code = if answered { record.response.status } else { 0 };
    let mut flags = "-".to_owned();
    match attempt {
        Attempt::Again | Attempt::Gone => put("canceled", "true".into()),
        Attempt::Reset(reset, _) => {
            put("error.reason", reset.reason.text().into());
            flags = flags_text(reset.reason.flag());
        }
        Attempt::TimedOut(_) => flags = "UT".into(),
        _ => {}
    }
    let reached = record.reached.last();
    let had = |host: &Rc<crate::upstream::Host>| reached.is_some_and(|(r, _)| Rc::ptr_eq(r, host));
    let connected = record.host.as_ref().is_some_and(had);
    let protocol = record.upstream_protocol.filter(|_| connected);
    put("http.protocol", protocol.map_or("-", |p| p.text()).into());
    if let Some(host) = &record.host {
        put("upstream_address", host.text.to_string());
        put("peer.address", host.text.to_string());
    }
    put("component", "proxy".into());
    if let Some(cluster) = &record.cluster {
        put("upstream_cluster", cluster.config.name.to_string());
        put(
            "upstream_cluster.name",
            cluster.config.stat_name.to_string(),
        );
    }
    put("http.status_code", code.to_string());
    put("response_flags", flags);
    if code == 0 || code >= 500 {
        put("error", "true".into());
    }
    span.failed = code >= 400;
}

fn custom_tags(
    config: &HttpConnectionManager,
    of_route: Option<&RouteTracing>,
    head: &Head,
    tags: &mut Tags,
) {
    let own: &[(Name, CustomTag)] = match of_route {
        Some(route) => &route.custom_tags,
        None => &[],
    };
    let general = config.tracing.iter().flat_map(|t| &t.custom_tags);
    let general = general.filter(|(name, _)| own.iter().all(|(o, _)| o != name));
    for (name, value) in own.iter().chain(general) {
        let value = match value {
            CustomTag::Literal(text) => text.to_string(),
            CustomTag::Header(header, default) => match head.first(header.as_bytes()) {
                Some(value) => String::from_utf8_lossy(value).into_owned(),
                None => default.to_string(),
            },
        };
        if !value.is_empty() {
            tags.push((Cow::Owned(name.to_string()), value));
        }
    }
}

/// Queues the spans of a closed record.
pub fn finish(record: &StreamRecord) {
    let Some(trace) = record.trace.as_ref().filter(|t| t.context.sampled) else {
        return;
    };
    for span in &trace.tries {
        trace.tracer.finished(Span {
            context: span.context.clone(),
            name: span.name.clone(),
            kind: Kind::Client,
            shared: false,
            start: span.start,
            end: if span.end == 0 {
                record.times.end
            } else {
                span.end
            },
            failed: span.failed,
            tags: span.tags.clone(),
        });
    }
    let client = trace.client;
    trace.tracer.finished(Span {
        context: trace.context.clone(),
        name: trace.operation.to_string(),
        kind: if client { Kind::Client } else { Kind::Server },
        shared: trace.shared,
        start: record.times.start,
        end: record.times.end,
        failed: record.code >= if client { 400 } else { 500 },
        tags: tags(record, trace),
    });
}

/// What the request's own span says.
fn tags(record: &StreamRecord, trace: &Trace) -> Tags {
    let (request, own) = (&record.request, &record.conn.worker.options.own);
    let mut tags = Tags::with_capacity(24);
    let mut put = |name: &'static str, value: String| tags.push((Cow::Borrowed(name), value));
    let lossy = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let or_dash = |value: Option<&[u8]>| value.map_or_else(|| "-".to_owned(), lossy);
    put("node_id", lossy(&own.id));
    put("zone", own.zone.to_string());
    if let Some(id) = request.known(Known::XRequestId) {
        put("guid:x-request-id", lossy(id));
    }
    if let Some(id) = request.first(b"x-client-trace-id") {
        put("guid:x-client-trace-id", lossy(id));
    }
    put("http.url", url(record, trace));
    put("http.method", lossy(request.method()));
    let from = request.known(Known::XEnvoyDownstreamServiceCluster);
    put("downstream_cluster", or_dash(from));
    put("user_agent", or_dash(request.known(Known::UserAgent)));
    put("http.protocol", record.protocol.text().into());
    put("peer.address", record.conn.io.peer.ip().to_string());
    let grpc = is_grpc(request);
    if grpc {
        put("grpc.path", lossy(request.path()));
        put("grpc.authority", lossy(request.authority()));
        put("grpc.content_type", or_dash(request.first(b"content-type")));
        if let Some(timeout) = request.first(b"grpc-timeout") {
            put("grpc.timeout", lossy(timeout));
        }
    }
    put("request_size", record.received.to_string());
    put("response_size", record.sent.to_string());
    put("component", "proxy".into());
    if let Some(cluster) = record.routed_cluster() {
        put("upstream_cluster", cluster.config.name.to_string());
        put(
            "upstream_cluster.name",
            cluster.config.stat_name.to_string(),
        );
    }
    put("http.status_code", record.code.to_string());
    put("response_flags", flags_text(record.flags));
    if let Some(status) = record.grpc_status().filter(|_| grpc) {
        put("grpc.status_code", status.to_string());
        let message = record.response_trailer("grpc-message");
        if let Some(message) = message.or_else(|| record.response_header("grpc-message")) {
            put("grpc.message", lossy(message));
        }
    }
    if record.code == 0 || record.code >= 500 {
        put("error", "true".into());
    }
    custom_tags(&trace.config, trace.of_route.as_deref(), request, &mut tags);
    tags
}

fn flags_text(flags: ResponseFlags) -> String {
    if flags.is_empty() {
        return "-".to_owned();
    }
    let mut out = Vec::new();
    flags.write(false, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Scheme, host and path as the client sent it, the path cut where it is long.
fn url(record: &StreamRecord, trace: &Trace) -> String {
    let request = &record.request;
    let scheme = request
        .known(Known::XForwardedProto)
        .unwrap_or(request.scheme());
    let path = request
        .known(Known::XEnvoyOriginalPath)
        .unwrap_or(request.path());
    let most = trace
        .config
        .tracing
        .as_ref()
        .map_or(256, |t| t.max_path_tag_length);
    let path = &path[..path.len().min(most as usize)];
    let pieces = [scheme, b"://", request.authority(), path].concat();
    String::from_utf8_lossy(&pieces).into_owned()
}
