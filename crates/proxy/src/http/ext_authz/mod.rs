//! The `ext_authz` filter at work: who is asked, with how much of the body, and what becomes of
//! the answer. No answer is a no, unless the configuration says otherwise.

mod grpc;
mod http;

use std::sync::Arc;

use lateen_proxy_core::config::ext_authz::{AuthzService, CheckedBody, ExtAuthz, ExtAuthzPerRoute};
use lateen_proxy_core::config::{Name, Value};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::headers::HeadersMut;
use lateen_proxy_core::stats::{Counter, Scope};
use lateen_proxy_xds::authz::{Flaw, HeaderWrite, NAMESPACE, Pass, Refusal, Verdict, Write};

use super::call::CallError;
use super::filters::Stop;
use super::head::Head;
use super::known::Known;
use super::local::LocalReply;
use super::record::{Protocol, now_ns};
use super::responder::Responder;
use super::source::{Filled, RequestBody};
use super::stream::Stream;
use crate::logger::{self, EXT_AUTHZ, tells};
use crate::stats::Stats;

/// Longest answer of the service, bytes.
const LONGEST: usize = 1 << 20;
/// Says upstream that nobody was asked.
const FAILURE_ALLOWED: &[u8] = b"x-envoy-auth-failure-mode-allowed";

/// What a filter keeps in one worker.
#[derive(Debug)]
pub struct AuthzState {
    /// As configured.
    pub config: Arc<ExtAuthz>,
    stat: String,
    ok: Counter,
    denied: Counter,
    error: Counter,
    disabled: Counter,
    invalid: Counter,
    request_header_limits_reached: Counter,
    failure_allowed: Counter,
}

impl AuthzState {
    /// The state of a filter that has served nothing yet.
    pub fn new(config: Arc<ExtAuthz>, scope: &Scope, stats: &Stats) -> Self {
        let stat = match config.stat_prefix.trim_end_matches('.') {
            "" => "ext_authz".to_owned(),
            prefix => format!("ext_authz.{prefix}"),
        };
        let counter = |what: &str| stats.named(scope, &format!("{stat}.{what}"));
        Self {
            ok: counter("ok"),
            denied: counter("denied"),
            error: counter("error"),
            disabled: counter("disabled"),
            invalid: counter("invalid"),
            request_header_limits_reached: counter("request_header_limits_reached"),
            failure_allowed: counter("failure_mode_allowed"),
            stat,
            config,
        }
    }
}

/// Why the service gave no verdict.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    /// It was not reached, or did not answer in time.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It answered, but not with a verdict.
    #[error("{0}")]
    Answer(String),
}

/// Asks about a request. `own` is what its route says of the filter; `upstream` the cluster it is
/// meant for. True when the route is to be chosen anew.
pub(super) async fn check(
    stream: &mut Stream<'_>,
    body: &mut RequestBody<'_>,
    out: &mut Responder<'_>,
    state: &AuthzState,
    own: Option<&ExtAuthzPerRoute>,
    upstream: Option<Name>,
) -> Result<bool, Stop> {
    let config = state.config.clone();
    let record = &mut *stream.record;
    let chosen = config.enabled.hit(record.random.rotate_left(24));
    let by_metadata = config.enabled_metadata.as_ref();
    let meant = by_metadata.is_none_or(|m| m.matches(record.dynamic_metadata(&m.filter)));
    if !chosen || !meant {
        if chosen || !config.deny_at_disable {
            state.disabled.inc();
            return Ok(false);
        }
        return Err(Stop::reply(refusal(
            config.status_on_error,
            "ext_authz_error",
        )));
    }
    let wanted = match own {
        Some(own) if own.without_body => None,
        Some(own) => own.body.or(config.body),
        None => config.body,
    };
    let leaves = record.request.method() == b"CONNECT" || record.request.has(Known::Upgrade);
    let wanted = wanted.filter(|_| !leaves && !body.is_empty());
    let partial = match wanted {
        None => false,
        Some(wanted) => fill(stream, body, out, wanted).await?,
    };
    let come = body.come();
    let lent = body.lend();
    let sample = wanted.map(|wanted| Sample {
        bytes: &lent,
        come,
        partial,
        wanted,
    });
    let told = sample.map(|sample| sample.bytes.len());
    let (mut request, follows) = match &config.service {
        AuthzService::Http(service) => http::question(stream, &config, service, sample),
        AuthzService::Grpc(service) => grpc::question(stream, &config, service, own, sample),
    };
    // The body may be as long as is configured: it is held once, and is the question's meanwhile.
    let kept = match follows {
        true => {
            request.tail = lent;
            None
        }
        false => Some(lent),
    };
    let worker = stream.record.conn.worker.clone();
    let cluster = match &config.service {
        AuthzService::Http(service) => &service.uri.cluster,
        AuthzService::Grpc(service) => &service.cluster,
    };
    if tells!(EXT_AUTHZ) {
        let (tags, body) = (logger::tagged(stream.record), told);
        tracing::debug!(target: EXT_AUTHZ, "{tags} ext_authz filter calling authorization server. cluster={cluster} body={body:?}");
    }
    let begun = now_ns();
    let asked = request.send(&worker, cluster);
    let answer = stream.pending(body, out, asked).await.ok_or(Stop::Gone)?;
    body.take_back(kept.unwrap_or(request.tail));
    let verdict = match (answer, &config.service) {
        (Err(error), _) => Err(error.into()),
        (Ok(mut answer), AuthzService::Http(service)) => {
            let ms = now_ns().saturating_sub(begun) / 1_000_000;
            let name = Known::XEnvoyUpstreamServiceTime;
            answer.head.set_number(name, ms);
            http::verdict(service, answer)
        }
        (Ok(answer), AuthzService::Grpc(_)) => grpc::verdict(&answer),
    };
    act(stream, state, upstream, verdict)
}

/// A body that goes with the check.
#[derive(Clone, Copy)]
struct Sample<'b> {
    bytes: &'b [u8],
    /// Bytes of the body that have come, of which these are the first.
    come: u64,
    partial: bool,
    wanted: CheckedBody,
}

/// Waits for as much of the body as the check gets; whether there is more of it.
async fn fill(
    stream: &mut Stream<'_>,
    body: &mut RequestBody<'_>,
    out: &mut Responder<'_>,
    wanted: CheckedBody,
) -> Result<bool, Stop> {
    stream.invite(out).await?;
    let (most, partial) = (wanted.most, wanted.partial);
    // As in Envoy: a whole body may be as long as is configured for the check, the beginning of
    // one no longer than what the connection or stream may hold.
    let held = Some(held_limit(stream)).filter(|held| partial && *held < most);
    let filled = body
        .fill(held.unwrap_or(most), partial && held.is_none(), out)
        .await;
    stream.complete = body.complete;
    if body.complete && stream.record.times.request_end == 0 {
        stream.record.times.request_end = now_ns();
    }
    match filled {
        Filled::Whole => Ok(false),
        Filled::Partly if partial && held.is_none() => Ok(true),
        Filled::Partly => {
            out.set_close();
            let reply = LocalReply::new(413, "Payload Too Large", "request_payload_too_large");
            Err(Stop::reply(reply))
        }
        Filled::Broken => Err(Stop::Gone),
    }
}

/// How much of a body a connection or stream may hold, bytes.
fn held_limit(stream: &Stream<'_>) -> usize {
    let limit = match stream.record.protocol {
        Protocol::Http2 => stream.http.config.http2.initial_stream_window_size,
        _ => stream.record.conn.listener.per_connection_buffer_limit,
    };
    match limit {
        0 => usize::MAX,
        limit => limit as usize,
    }
}

fn refusal(status: u16, details: &'static str) -> LocalReply<'static> {
    let reply = LocalReply::new(status, "", details);
    reply.flag(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE)
}

/// Does what the verdict says.
fn act(
    stream: &mut Stream<'_>,
    state: &AuthzState,
    upstream: Option<Name>,
    verdict: Result<Verdict, CheckError>,
) -> Result<bool, Stop> {
    let config = &state.config;
    let worker = stream.record.conn.worker.clone();
    let count = |counter: &Counter, what: &str| {
        counter.inc();
        if let Some(cluster) = &upstream {
            let stat = format!("{}.{what}", state.stat);
            worker.stats.named(&Scope::cluster(cluster), &stat).inc();
        }
    };
    let unfit = || {
        count(&state.invalid, "invalid");
        Err(Stop::reply(refusal(500, "ext_authz_invalid")))
    };
    if tells!(EXT_AUTHZ) {
        say(stream, config, &verdict);
    }
    match verdict {
        Ok(Verdict::Passes(pass, metadata)) => {
            let right = matches!(pass.fits(), Ok(()) | Err(Flaw::Method));
            if config.validate_mutations && (pass.unclear || !right) {
                return unfit();
            }
            keep(stream, metadata.get(NAMESPACE));
            if let Err(flaw) = amend(&mut stream.record.request, &pass) {
                count(&state.ok, "ok");
                return Err(Stop::reply(unwritten(&flaw)));
            }
            if over_limits(stream) {
                state.request_header_limits_reached.inc();
                return unfit();
            }
            count(&state.ok, "ok");
            let changes = pass.changes();
            stream.added.extend(pass.response_headers);
            Ok(changes && config.clear_route_cache)
        }
        Ok(Verdict::Refused(answer, metadata)) => {
            let mut lines = answer.headers.iter();
            if config.validate_mutations && !lines.all(|line| line.fits_response().is_ok()) {
                return unfit();
            }
            count(&state.denied, "denied");
            keep(stream, metadata.get(NAMESPACE));
            Err(Stop::reply(given(answer, 403, "ext_authz_denied")))
        }
        // Too long is no silence: what was said of the request is not known.
        Ok(Verdict::Failed(_)) | Err(_) if config.failure_mode_allow && !too_long(&verdict) => {
            count(&state.error, "error");
            count(&state.failure_allowed, "failure_mode_allowed");
            if config.failure_mode_allow_header {
                stream.record.request.set(FAILURE_ALLOWED, b"true");
            }
            Ok(false)
        }
        Ok(Verdict::Failed(answer)) => {
            count(&state.error, "error");
            let reply = given(answer, config.status_on_error, "ext_authz_error");
            Err(Stop::reply(reply))
        }
        Err(_) => {
            count(&state.error, "error");
            let reply = refusal(config.status_on_error, "ext_authz_error");
            Err(Stop::reply(reply))
        }
    }
}

fn too_long(verdict: &Result<Verdict, CheckError>) -> bool {
    matches!(verdict, Err(CheckError::Call(CallError::TooLong)))
}

/// Changes a request as its verdict says; nothing of it where something cannot be written.
fn amend(request: &mut Head, pass: &Pass) -> Result<(), Flaw> {
    pass.fits()?;
    // A tunnel's request is no other one, and no other is a tunnel's.
    let method = pass.headers.iter().find(|h| &*h.name == ":method");
    if let Some(method) = method.filter(|_| request.method() == b"CONNECT") {
        return Err(Flaw::Value(method.name.clone()));
    }
    write_all(request, &pass.headers);
    for name in &pass.remove {
        request.remove(name.as_bytes());
    }
    if !pass.query.is_empty() {
        let path = pass.query.path(request.path());
        request.set_path(&path);
    }
    Ok(())
}

/// Whether the request has more headers than one that comes in may have.
fn over_limits(stream: &Stream<'_>) -> bool {
    let (request, config) = (&stream.record.request, &stream.http.config);
    let pseudo = [
        (&b":method"[..], request.method()),
        (b":path", request.path()),
        (b":authority", request.authority()),
        (b":scheme", request.scheme()),
    ];
    let (mut count, mut size) = (0, 0);
    for (name, value) in pseudo.into_iter().chain(request.lines()) {
        count += 1;
        size += name.len() + value.len();
    }
    count > config.max_headers_count as usize
        || size > config.max_request_headers_kb as usize * 1024
}

/// The answer to a request that cannot be sent on as the service wants it, in Envoy's words.
fn unwritten(flaw: &Flaw) -> LocalReply<'static> {
    let text = flaw.to_string();
    let details = text.replace(' ', "_");
    let details = format!("filter_removed_required_request_headers{{{details}}}");
    let mut reply = LocalReply::new(503, "", details);
    reply.body = text.into_bytes().into();
    reply.flag(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
}

/// The answer that the service gives. Lines that cannot be written are left out: what follows them
/// would be lines of their own.
fn given(answer: Refusal, status: u16, details: &'static str) -> LocalReply<'static> {
    let mut reply = refusal(answer.status.unwrap_or(status), details);
    reply.body = answer.body.into();
    let lines = answer.headers.into_iter();
    reply.own = lines
        .filter(|line| !line.name.starts_with(':') && line.fits_response().is_ok())
        .map(|line| (line.name.as_bytes().to_vec(), line.value))
        .collect();
    reply
}

/// Tells the verdict, in Envoy's words.
#[cold]
fn say(stream: &Stream<'_>, config: &ExtAuthz, verdict: &Result<Verdict, CheckError>) {
    let tags = logger::tagged(stream.record);
    match verdict {
        Ok(Verdict::Passes(..)) => {
            tracing::debug!(target: EXT_AUTHZ, "{tags} ext_authz filter accepted the request");
        }
        Ok(Verdict::Refused(answer, _)) => {
            let status = answer.status.unwrap_or(403);
            tracing::debug!(target: EXT_AUTHZ, "{tags} ext_authz filter rejected the request. Response status code: '{status}'");
        }
        Ok(Verdict::Failed(_)) | Err(_) => {
            let what = match config.failure_mode_allow {
                true => "allowed the request with error",
                false => "rejected the request with an error",
            };
            let error = match verdict {
                Err(error) => error.to_string(),
                Ok(_) => "the service reports an error".to_owned(),
            };
            let error = error.as_bytes().escape_ascii();
            tracing::debug!(target: EXT_AUTHZ, "{tags} ext_authz filter {what}: {error}");
        }
    }
}

fn keep(stream: &mut Stream<'_>, metadata: Option<&Value>) {
    if let Some(Value::Struct(fields)) = metadata {
        for (key, value) in fields {
            stream.record.set_metadata(NAMESPACE, key, value.clone());
        }
    }
}

/// Writes headers in their order. There is one path, one host and so on: what is added to such a
/// field stands behind a comma.
pub(super) fn write_all(head: &mut Head, headers: &[HeaderWrite]) {
    for header in headers {
        let (name, value) = (&*header.name, &header.value[..]);
        let scheme = matches!(value, b"http" | b"https");
        match name {
            ":path" | ":authority" | ":method" => {}
            ":scheme" if scheme => {}
            // Nothing else of this form is of a request, and of an answer the status alone.
            name if name.starts_with(':') => continue,
            _ => {}
        }
        let there = head.first(name.as_bytes()).is_some();
        let single = name.starts_with(':') || (name == "host" && head.status == 0);
        match header.write {
            Write::Set | Write::IfPresent if there => HeadersMut::set(head, name, value),
            Write::Set => HeadersMut::add(head, name, value),
            Write::Add if !(single && there) => HeadersMut::add(head, name, value),
            Write::IfAbsent if !there => HeadersMut::add(head, name, value),
            Write::Add | Write::Join => {
                if let Some(old) = head.first(name.as_bytes()) {
                    let joined = [old, b",", value].concat();
                    HeadersMut::set(head, name, &joined);
                }
            }
            Write::IfAbsent | Write::IfPresent => {}
        }
    }
}
