//! What follows an accepted upgrade or CONNECT: both sides have left HTTP, bytes
//! go both ways until one side ends, and the record says which.

use std::borrow::Cow;
use std::future::poll_fn;

use lateen_proxy_core::local_reply::ResetReason;

use super::attempt::Exchange;
use super::known::Known;
use super::reader::BodyReader;
use super::responder::{Body, Responder};
use super::stream::Stream;
use super::upstream::Receiver;
use crate::tcp::{self, Ended, Moved, Peer};

impl Stream<'_> {
    /// Both sides left HTTP: bytes go both ways until one side ends.
    pub(super) async fn tunnel(&mut self, exchange: Exchange<'_, '_>, out: &mut Responder<'_>) {
        let record = &mut *self.record;
        record.code = record.response.status;
        record.details = Cow::Borrowed("via_upstream");
        if record.code != 101 {
            record.response.remove_known(Known::ContentLength);
        } else if !record.response.has(Known::Connection) {
            record.response.set_known(Known::Connection, b"upgrade");
        }
        self.finish_response_head(out);
        out.set_close();
        let (Receiver::H1(up), BodyReader::H1(io, reader)) =
            (exchange.receiver, &mut exchange.body.reader)
        else {
            return out.abort(h2::Reason::INTERNAL_ERROR);
        };
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
        let down = tcp::Side::new(io, &mut reader.buf);
        let up = tcp::Side::new(up.io, &mut up.reader.buf);
        let moved = tcp::copy(down, up, self.timer, None).await;
        self.record.received += moved.upward;
        self.record.sent += moved.downward;
        self.tunnel_ended(&moved);
    }

    /// Says in the record who left the tunnel.
    fn tunnel_ended(&mut self, moved: &Moved) {
        let left = match moved.ended {
            Ended::Downstream => Some(Peer::Downstream),
            Ended::Upstream => Some(Peer::Upstream),
            Ended::Finished | Ended::Idle | Ended::TooOld => moved.first,
        };
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
