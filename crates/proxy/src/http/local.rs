//! Answers that the proxy makes itself: in HTTP form or, to gRPC requests, in
//! gRPC form, changed as `local_reply_config` says.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::ready;

use lateen_proxy_core::access_log::{FilterInput, Format};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::local_reply::{
    LocalReplyConfig, Situation, grpc_status, write_grpc_message,
};
use lateen_proxy_core::router::is_grpc;

use super::known::Known;
use super::record::now_ns;
use super::responder::{Body, Responder};
use super::stream::Stream;

/// What a body is where nothing says otherwise.
pub(super) const PLAIN: &str = "text/plain";

/// An answer of our own.
#[derive(Debug)]
pub struct LocalReply<'a> {
    /// HTTP status.
    pub status: u16,
    /// Body text.
    pub body: Cow<'a, [u8]>,
    /// Flags to set.
    pub flags: ResponseFlags,
    /// Details of the status.
    pub details: Cow<'static, str>,
    /// Further headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// Headers of an answer that another gave; they take the place of the proxy's own.
    pub own: Vec<(Vec<u8>, Vec<u8>)>,
    /// gRPC status instead of the one that the HTTP status maps to.
    pub grpc: Option<u32>,
    /// The connection manager gives it, not its router: it tells nothing of tries.
    pub of_manager: bool,
}

impl From<Situation> for LocalReply<'static> {
    fn from(situation: Situation) -> Self {
        Self::new(situation.status, situation.body, situation.details).flag(situation.flags)
    }
}

impl<'a> LocalReply<'a> {
    /// An answer without flags.
    pub fn new(status: u16, body: &'a str, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            body: Cow::Borrowed(body.as_bytes()),
            flags: ResponseFlags::NONE,
            details: details.into(),
            headers: Vec::new(),
            own: Vec::new(),
            grpc: None,
            of_manager: false,
        }
    }

    /// With a flag.
    pub fn flag(mut self, flag: ResponseFlags) -> Self {
        self.flags.set(flag);
        self
    }

    /// With another status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Given by the connection manager itself, with this gRPC status where it has one of its own.
    pub fn of_manager(mut self, grpc: Option<u32>) -> Self {
        self.of_manager = true;
        self.grpc = grpc;
        self
    }

    /// With one more header.
    pub fn header(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Stream<'_> {
    /// A body as a format writes it.
    pub(super) fn formatted(&mut self, format: &Format, body: &[u8]) -> Vec<u8> {
        let record = &mut *self.record;
        record.local_body.clear();
        record.local_body.extend_from_slice(body);
        let mut made = Vec::new();
        format.write(record, &mut made);
        // Log lines have none, as in Envoy.
        record.local_body.clear();
        made
    }

    /// Answers the request here.
    pub(super) async fn reply(&mut self, out: &mut Responder<'_>, reply: LocalReply<'_>) {
        if reply.status == 400 {
            // Who sends what is no request may be in another place of its bytes.
            out.set_close();
        }
        let record = &mut *self.record;
        record.flags.set(reply.flags);
        record.details = reply.details;
        record.code = reply.status;
        crate::logger::local_reply(record);
        record.response.clear();
        record.response.status = reply.status;
        self.tells_attempts = !reply.of_manager;
        let mut body = reply.body.into_owned();
        // A route's edits come before what a body needs, so that they may name its type; those of
        // a redirect and the like come after the location.
        let routed = record.details == "direct_response";
        if !routed {
            self.edit_reply();
        }
        let record = &mut *self.record;
        for (name, value) in &reply.headers {
            record.response.add(name.as_bytes(), value);
        }
        for (name, value) in &reply.own {
            record.response.add(name, value);
        }
        if routed {
            self.edit_reply();
        }
        let config = self.http.config.local_reply.clone();
        let format = config.and_then(|config| map(self, &config, &mut body));
        let record = &mut *self.record;
        let grpc = is_grpc(&record.request);
        if grpc {
            record.response.remove(b"content-length");
            let status = record.response.status;
            record.response.status = 200;
            record
                .response
                .set_known(Known::ContentType, b"application/grpc");
            let code = reply.grpc.unwrap_or_else(|| grpc_status(status));
            record.response.add_number(Known::GrpcStatus, code.into());
            if !body.is_empty() && !out.to_head() {
                let mut message = Vec::new();
                write_grpc_message(&body, &mut message);
                record.response.add(b"grpc-message", &message);
            }
            record.code = 200;
            body.clear();
        } else {
            if matches!(record.response.status, 204 | 304) {
                // Whatever follows such a head is taken for the next answer (RFC 9112 section 6.3).
                body.clear();
            }
            if !body.is_empty() {
                record
                    .response
                    .set_number(Known::ContentLength, body.len() as u64);
                // What a format makes is of the format's type, whatever was said before.
                if format.is_some() || !record.response.has(Known::ContentType) {
                    let value = format.as_deref().unwrap_or(PLAIN);
                    let response = &mut record.response;
                    response.set_known(Known::ContentType, value.as_bytes());
                }
            } else {
                // Whatever was said of it, there is no body.
                let of_body = [Known::ContentLength, Known::ContentType];
                record.response.remove_all(Known::bits(&of_body));
            }
            record.code = record.response.status;
        }
        if out.to_head() {
            body.clear();
        }
        self.finish_response(out);
        self.send_reply(out, &body).await;
    }

    async fn send_reply(&mut self, out: &mut Responder<'_>, body: &[u8]) {
        let record = &mut *self.record;
        let kind = if body.is_empty() {
            Body::None
        } else {
            Body::Length(body.len() as u64)
        };
        record.times.response_start = now_ns();
        let mut rest = body;
        let sent = match out.begin(&mut record.response, kind) {
            Err(error) => Err(error),
            Ok(mut writer) => {
                poll_fn(|cx| {
                    while !rest.is_empty() {
                        let count = ready!(writer.poll_send(cx, rest))?;
                        rest = &rest[count..];
                    }
                    if kind != Body::None {
                        writer.end(None)?;
                    }
                    writer.poll_flush(cx)
                })
                .await
            }
        };
        record.sent += (body.len() - rest.len()) as u64;
        if sent.is_err() {
            record
                .flags
                .set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            out.set_close();
        }
    }
}

/// Applies the first mapper that fits. Returns the content type of a formatted
/// body.
fn map(stream: &mut Stream<'_>, config: &LocalReplyConfig, body: &mut Vec<u8>) -> Option<String> {
    let record = &mut *stream.record;
    let input = FilterInput {
        code: record.response.status.into(),
        duration_ms: record.duration_ms(),
        flags: record.flags,
        headers: &record.request,
        grpc_status: Some(grpc_status(record.response.status)),
        health_check: false,
        traced: false,
        log_type: "NotSet",
        random: record.random,
    };
    let mapper = config.mappers.iter().find(|m| m.filter.passes(&input));
    if let Some(mapper) = mapper {
        if let Some(text) = &mapper.body {
            *body = text.to_vec();
        }
        // The headers see the status as it was.
        super::mutate::apply(record, super::mutate::Side::Response, &mapper.headers);
        if let Some(status) = mapper.status {
            record.response.status = status;
            record.code = status;
        }
    }
    let format = mapper
        .and_then(|m| m.body_format.as_ref())
        .or(config.body_format.as_ref())?;
    *body = stream.formatted(&format.format, body);
    Some(format.content_type.to_string())
}
