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
use lateen_proxy_xds::authz::{HeaderWrite, NAMESPACE, Verdict, Write};

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
    let lent = body.lend();
    let sample = wanted.map(|wanted| Sample {
        bytes: &lent,
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
    let of_cluster = |what: &str| {
        if let Some(cluster) = &upstream {
            let stat = format!("{}.{what}", state.stat);
            worker.stats.named(&Scope::cluster(cluster), &stat).inc();
        }
    };
    if tells!(EXT_AUTHZ) {
        say(stream, config, &verdict);
    }
    match verdict {
        Ok(Verdict::Passes {
            headers,
            remove,
            response_headers,
            metadata,
        }) => {
            state.ok.inc();
            of_cluster("ok");
            keep(stream, metadata.get(NAMESPACE));
            let changes = !headers.is_empty() || !remove.is_empty();
            let request = &mut stream.record.request;
            for name in &remove {
                request.remove(name.as_bytes());
            }
            write_all(request, &headers);
            stream.added.extend(response_headers);
            Ok(changes && config.clear_route_cache)
        }
        Ok(Verdict::Refused {
            status,
            headers,
            body,
            metadata,
        }) => {
            state.denied.inc();
            of_cluster("denied");
            keep(stream, metadata.get(NAMESPACE));
            let mut reply = refusal(status, "ext_authz_denied");
            reply.body = body.into();
            // The answer's own, also where it names its type.
            let mut made = Head::new();
            write_all(&mut made, &headers);
            reply.own = made
                .lines()
                .map(|(n, v)| (n.to_vec(), v.to_vec()))
                .collect();
            Err(Stop::reply(reply))
        }
        Err(_) => {
            state.error.inc();
            of_cluster("error");
            if !config.failure_mode_allow {
                return Err(Stop::reply(refusal(
                    config.status_on_error,
                    "ext_authz_error",
                )));
            }
            state.failure_allowed.inc();
            of_cluster("failure_mode_allowed");
            if config.failure_mode_allow_header {
                stream.record.request.set(FAILURE_ALLOWED, b"true");
            }
            Ok(false)
        }
    }
}

/// Tells the verdict, in Envoy's words.
#[cold]
fn say(stream: &Stream<'_>, config: &ExtAuthz, verdict: &Result<Verdict, CheckError>) {
    let tags = logger::tagged(stream.record);
    match verdict {
        Ok(Verdict::Passes { .. }) => {
            tracing::debug!(target: EXT_AUTHZ, "{tags} ext_authz filter accepted the request");
        }
        Ok(Verdict::Refused { status, .. }) => {
            tracing::debug!(target: EXT_AUTHZ, "{tags} ext_authz filter rejected the request. Response status code: '{status}'");
        }
        Err(error) => {
            let what = match config.failure_mode_allow {
                true => "allowed the request with error",
                false => "rejected the request with an error",
            };
            let error = error.to_string();
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
