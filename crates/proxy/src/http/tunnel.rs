//! What follows an accepted upgrade or CONNECT: both sides have left HTTP, bytes
//! go both ways until one side ends, and the record says which.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::task::Poll;

use lateen_proxy_core::local_reply::ResetReason;

use super::attempt::{Broken, Exchange};
use super::forward::{Deadlines, Timeout};
use super::head::Head;
use super::known::Known;
use super::reader::{BodyReader, ReadError};
use super::record::Protocol;
use super::responder::{Body, Responder};
use super::source::RequestBody;
use super::stream::Stream;
use super::upstream::{Answer, Receiver, UpstreamReset, malformed};
use super::writer::{BodyWriter, Meter, PumpError, poll_pump};
use crate::http1::Framing;
use crate::http2::Reason;
use crate::io::timer::NEVER;
use crate::stats::HttpStats;
use crate::stats::rare::HttpEvent;
use crate::tcp::{self, Ended, Peer};

/// Whether an answer leaves HTTP for what was asked, where it leaves it.
///
/// # Errors
/// It leaves it for another protocol: nobody has agreed to carry that one.
pub(super) fn as_asked(
    request: &Head,
    response: &Head,
    answer: Answer,
) -> Result<Answer, UpstreamReset> {
    let asked = request.known(Known::Upgrade).unwrap_or_default();
    let mut said = response.all_known(Known::Upgrade);
    match response.status != 101 || said.all(|said| said.eq_ignore_ascii_case(asked)) {
        true => Ok(answer),
        false => Err(malformed("101 for another protocol")),
    }
}

/// Counts a request that left HTTP, until dropped.
struct ActiveUpgrade(Rc<HttpStats>);

impl ActiveUpgrade {
    fn new(stats: &Rc<HttpStats>) -> Self {
        let events = &stats.events;
        events.raise(HttpEvent::downstream_cx_upgrades_active, 1);
        Self(stats.clone())
    }
}

impl Drop for ActiveUpgrade {
    fn drop(&mut self) {
        let events = &self.0.events;
        events.raise(HttpEvent::downstream_cx_upgrades_active, -1);
    }
}

impl Stream<'_> {
    /// Both sides left HTTP: bytes go both ways until both directions have ended, one side broke,
    /// or a deadline passed: a tunnel idles and lives no longer than any other stream.
    pub(super) async fn tunnel(
        &mut self,
        exchange: &mut Exchange<'_, '_>,
        out: &mut Responder<'_>,
        deadlines: &mut Deadlines,
    ) {
        // Those of the request and of a try without an answer have been met.
        deadlines.request = NEVER;
        deadlines.per_try = NEVER;
        deadlines.per_try_after = None;
        let record = &mut *self.record;
        record.code = record.response.status;
        record.details = Cow::Borrowed("via_upstream");
        if record.code != 101 {
            record.response.remove_known(Known::ContentLength);
        } else {
            if !record.response.has(Known::Connection) {
                record.response.set_known(Known::Connection, b"upgrade");
            }
            // HTTP/2 does not say to what (RFC 8441 section 5).
            if let Some(protocol) = record.request.known(Known::Upgrade)
                && !record.response.has(Known::Upgrade)
            {
                record.response.set_known(Known::Upgrade, protocol);
            }
        }
        self.finish_response_head(out);
        out.set_close();
        if let Responder::H1 { close, .. } = out {
            *close = false; // the head must not say `connection: close`
        }
        let begun = match out.begin(&mut self.record.response, Body::Tunnel) {
            Ok(mut writer) => poll_fn(|cx| writer.poll_flush(cx)).await,
            Err(error) => Err(error),
        };
        out.set_close();
        if begun.is_err() {
            return;
        }
        self.http.stats.cells.downstream_cx_upgrades_total.inc();
        let _active = ActiveUpgrade::new(&self.http.stats);
        match (&mut exchange.receiver, &mut exchange.body.reader) {
            (Receiver::H1(up), BodyReader::H1(io, reader)) => {
                let down = tcp::Side::new(io, &mut reader.buf);
                let up = tcp::Side::new(up.io, &mut up.reader.buf);
                let limits = tcp::Limits {
                    idle: deadlines.idle_after,
                    until: match deadlines.max.min(deadlines.upstream) {
                        NEVER => 0,
                        until => until,
                    },
                };
                let moved = tcp::copy(down, up, self.timer, limits).await;
                self.record.received += moved.upward;
                self.record.sent += moved.downward;
                match moved.ended {
                    Ended::Downstream => self.tunnel_ended(Some(Peer::Downstream)),
                    Ended::Upstream => self.tunnel_ended(Some(Peer::Upstream)),
                    Ended::Finished => self.tunnel_ended(moved.first),
                    Ended::Idle => self.broke(Broken::TimedOut(Timeout::Idle), out),
                    Ended::TooOld if deadlines.upstream < deadlines.max => {
                        self.broke(Broken::TimedOut(Timeout::Upstream), out);
                    }
                    Ended::TooOld => self.broke(Broken::TimedOut(Timeout::MaxDuration), out),
                }
            }
            (receiver, reader) => {
                if let BodyReader::H1(_, reader) = reader {
                    reader.begin(Framing::Close);
                }
                if let Receiver::H1(up) = receiver {
                    up.reader.begin(Framing::Close);
                }
                let to = std::mem::replace(&mut exchange.sender, BodyWriter::Nowhere);
                let up = (receiver.body(), to);
                let ended = self.streams(exchange.body, out.writer(), up, deadlines);
                match ended.await {
                    Ok(()) => {}
                    Err(Broken::TimedOut(timeout)) => self.broke(Broken::TimedOut(timeout), out),
                    Err(Broken::Downstream) => {
                        out.cut(Reason::CONNECT_ERROR);
                        self.tunnel_ended(Some(Peer::Downstream));
                    }
                    Err(Broken::Upstream(_)) => {
                        out.cut(Reason::CONNECT_ERROR);
                        self.tunnel_ended(Some(Peer::Upstream));
                    }
                }
            }
        }
    }

    /// Moves bytes both ways where one side is a stream of HTTP/2, until both
    /// directions have ended. An error names the side that broke, or the deadline.
    async fn streams(
        &mut self,
        from: &mut RequestBody<'_>,
        mut back: BodyWriter<'_>,
        (mut upstream, mut to): (BodyReader<'_>, BodyWriter<'_>),
        deadlines: &mut Deadlines,
    ) -> Result<(), Broken> {
        let (mut upward, mut downward) = (Meter::default(), Meter::default());
        let (mut none, mut done) = (Head::new(), (false, false));
        let from_h2 = self.record.protocol == Protocol::Http2;
        let ended = poll_fn(|cx| {
            if !done.0
                && let Poll::Ready(moved) =
                    poll_pump(from, &mut to, &mut upward, &mut none, false, cx)
            {
                match moved {
                    Ok(()) => {}
                    Err(PumpError::Source(_)) => return Poll::Ready(Err(Broken::Downstream)),
                    Err(PumpError::Sink(_)) => return Poll::Ready(Err(upstream_gone())),
                }
                done.0 = to.poll_close(cx).is_ready();
                if done.0 && from_h2 {
                    // What the client wants is whole: the answer has its time.
                    deadlines.request_complete();
                }
            }
            if !done.1
                && let Poll::Ready(moved) = poll_pump(
                    &mut upstream,
                    &mut back,
                    &mut downward,
                    &mut none,
                    false,
                    cx,
                )
            {
                match moved {
                    Ok(()) => {}
                    Err(PumpError::Source(_)) => return Poll::Ready(Err(upstream_gone())),
                    Err(PumpError::Sink(_)) => return Poll::Ready(Err(Broken::Downstream)),
                }
                done.1 = back.poll_close(cx).is_ready();
            }
            if done == (true, true) {
                return Poll::Ready(Ok(()));
            }
            if back.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Broken::Downstream));
            }
            if to.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(upstream_gone()));
            }
            if std::mem::take(&mut upward.moved) | std::mem::take(&mut downward.moved) {
                deadlines.touch();
            }
            self.poll_deadlines(deadlines, cx)
                .map(|passed| Err(Broken::TimedOut(passed)))
        })
        .await;
        self.record.sent += downward.bytes;
        if ended.is_err() {
            to.abort(Reason::CANCEL);
        }
        ended
    }

    /// Says in the record who left the tunnel.
    fn tunnel_ended(&mut self, left: Option<Peer>) {
        let record = &mut *self.record;
        match left {
            Some(Peer::Downstream) => record.client_gone(),
            Some(Peer::Upstream) => {
                let reason = ResetReason::ConnectionTermination;
                record.flags.set(reason.flag());
                record.details = Cow::Owned(reason.details_after());
            }
            None => {}
        }
    }
}

/// The upstream left the tunnel.
fn upstream_gone() -> Broken {
    Broken::Upstream(ReadError::Closed(ErrorKind::ConnectionReset.into()))
}
