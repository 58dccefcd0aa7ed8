//! Request mirroring: a copy of a request goes to another cluster, and its
//! answer to nobody. A body is copied once it arrived whole, up to the buffer
//! limit of the route; a longer one is not mirrored.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::route::{Forward, Mirror};
use lateen_proxy_core::flags::ResponseFlags;

use super::attempt::fits_pool;
use super::head::Head;
use super::known::Known;
use super::reader::ReadError;
use super::record::StreamRecord;
use super::stream::Chosen;
use super::upstream::{H1Receiver, Receiver};
use super::writer::{BodyWriter, H2Writer, Meter, Source, poll_pump};
use crate::http1::{Framing, write_request_head};
use crate::io::{Timer, timer};
use crate::upstream::host::{H1Client, add_one};
use crate::upstream::http2::H2Stream;
use crate::upstream::{
    ActiveRequest, Choice, ClusterState, ConnectOptions, Host, HttpConnection, Limited, connect,
};
use crate::worker::Worker;

/// How long a copy may take where the route sets no timeout.
const LONGEST: Duration = Duration::from_secs(300);

/// A copy that is to be sent.
pub(super) struct Shadow {
    cluster: Name,
    head: Head,
    h2: bool,
}

/// The copies a request gets: of the route, else the virtual host, else the
/// table (the most specific that names any).
pub(super) fn wanted(record: &StreamRecord, forward: &Forward, chosen: &Chosen) -> Vec<Shadow> {
    let levels = [
        &forward.mirrors,
        &chosen.host.mirrors,
        &chosen.table.mirrors,
    ];
    let Some(mirrors) = levels.into_iter().find(|m| !m.is_empty()) else {
        return Vec::new();
    };
    let mut shadows = Vec::new();
    for (mirror, turn) in mirrors.iter().zip(1..) {
        // Each mirror draws for itself.
        if !mirror.fraction.hit(record.random.rotate_left(turn * 7)) {
            continue;
        }
        let by_header = || {
            let value = record.request.first(mirror.cluster_header.as_bytes())?;
            std::str::from_utf8(value).ok().map(Name::from)
        };
        let cluster = match mirror.cluster.is_empty() {
            true => by_header(),
            false => Some(mirror.cluster.clone()),
        };
        if let Some(cluster) = cluster {
            let mut head = record.request.clone();
            let host = host(mirror, head.authority());
            head.set_authority(&host);
            head.remove_known(Known::Expect);
            shadows.push(Shadow {
                cluster,
                head,
                h2: record.protocol == super::record::Protocol::Http2,
            });
        }
    }
    shadows
}

/// The copy's host: as configured, or with `-shadow` before a port.
fn host(mirror: &Mirror, host: &[u8]) -> Vec<u8> {
    if !mirror.host_rewrite.is_empty() {
        return mirror.host_rewrite.as_bytes().to_vec();
    }
    if mirror.disable_shadow_host_suffix {
        return host.to_vec();
    }
    let digits = |port: &[u8]| !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    let end = match memchr::memrchr(b':', host) {
        Some(at) if digits(&host[at + 1..]) => at,
        _ => host.len(),
    };
    [&host[..end], b"-shadow", &host[end..]].concat()
}

/// Sends copies on their way; nobody waits for them.
pub(super) fn send(
    worker: &Rc<Worker>,
    shadows: &[Shadow],
    body: &[u8],
    timeout: Option<Duration>,
) {
    for shadow in shadows {
        let Some(cluster) = worker.clusters.get(&shadow.cluster) else {
            tracing::debug!(cluster = %shadow.cluster, "mirror to an unknown cluster");
            continue;
        };
        let head = shadow.head.clone();
        let (body, h2) = (body.to_vec(), shadow.h2);
        tokio::task::spawn_local(async move {
            let timer = Timer::new();
            let limit = timeout.filter(|t| !t.is_zero()).unwrap_or(LONGEST);
            timer.set(timer::deadline(timer::now_ms(), Some(limit)));
            if timer.race(run(&cluster, head, body, h2)).await.is_none() {
                tracing::debug!(cluster = %cluster.config.name, "mirrored request timed out");
            }
        });
    }
}

async fn run(cluster: &Rc<ClusterState>, head: Head, body: Vec<u8>, h2: bool) {
    let Some(_permit) = cluster.permit(0, Limited::Requests) else {
        return cluster.stats.cells.upstream_rq_pending_overflow.inc();
    };
    let Some(host) = cluster.choose(&Choice::default()) else {
        return cluster.stats.cells.upstream_cx_none_healthy.inc();
    };
    let _active = ActiveRequest::new(&cluster.stats);
    let options = ConnectOptions {
        downstream_h2: h2,
        authority: match cluster.config.http.auto_sni {
            true => head.authority().to_vec(),
            false => Vec::new(),
        },
        // A copy is the proxy's own request, as in Envoy.
        source: None,
        alpn: &[],
    };
    let begun = timer::now_ms();
    host.active.set(host.active.get() + 1);
    add_one(&host.counts.requests);
    cluster.stats.cells.upstream_rq_total.inc();
    let status = match connect::http(cluster, &host, 0, &options).await {
        Ok((HttpConnection::H1(client), _)) => over_h1(cluster, &host, client, &head, body).await,
        Ok((HttpConnection::H2(stream), _)) => over_h2(stream, &head, body).await,
        Err(_) => None,
    };
    host.active.set(host.active.get() - 1);
    match status {
        Some(status) => {
            host.note_answer(cluster, status);
            let ms = timer::now_ms() - begun;
            // The proxy asks on its own behalf.
            cluster
                .stats
                .finished(status, ms, ResponseFlags::NONE, true);
        }
        None => host.note_failure(cluster),
    }
}

async fn over_h1(
    cluster: &Rc<ClusterState>,
    host: &Rc<Host>,
    mut client: Box<H1Client>,
    head: &Head,
    body: Vec<u8>,
) -> Option<u16> {
    client.requests += 1;
    let framing = match () {
        () if body.is_empty() => Framing::None,
        () if head.has(Known::ContentLength) => Framing::Length(1),
        () => Framing::Chunked,
    };
    let parts = &mut *client;
    parts.writer.begin(framing == Framing::Chunked, |bytes| {
        write_request_head(head, framing, bytes);
    });
    let receiver = Receiver::H1(H1Receiver {
        io: &parts.io,
        reader: &mut parts.reader,
        to_head: head.method() == b"HEAD",
        upgrade: false,
        seen: 0,
    });
    let sender = BodyWriter::H1(&parts.io, &mut parts.writer);
    let answered = exchange(receiver, sender, body).await;
    let reusable = answered.is_some_and(|(_, keep)| keep) && fits_pool(&client, cluster);
    if reusable {
        cluster.watch_idle(host);
        host.put_idle(client);
    } else {
        drop(client);
        host.connection_closed();
    }
    answered.map(|(status, _)| status)
}

async fn over_h2(stream: H2Stream, head: &Head, body: Vec<u8>) -> Option<u16> {
    let end = body.is_empty();
    let handle = stream.open(head, &[], end)?;
    let writer = BodyWriter::H2(H2Writer::new(&handle, end));
    let answered = exchange(Receiver::H2(&handle, false), writer, body).await;
    answered.map(|(status, _)| status)
}

/// Sends the body and throws the answer away; its status, and whether the
/// connection may go on.
async fn exchange(
    mut receiver: Receiver<'_>,
    mut sender: BodyWriter<'_>,
    body: Vec<u8>,
) -> Option<(u16, bool)> {
    let mut source = Kept { bytes: body, at: 0 };
    let (mut meter, mut trailers) = (Meter::default(), Head::new());
    poll_fn(|cx| {
        poll_pump(
            &mut source,
            &mut sender,
            &mut meter,
            &mut trailers,
            false,
            cx,
        )
    })
    .await
    .ok()?;
    let mut head = Head::new();
    let answer = poll_fn(|cx| receiver.poll_head(&mut head, cx)).await.ok()?;
    let mut upstream = receiver.into_body();
    let mut meter = Meter::default();
    let mut nowhere = BodyWriter::Nowhere;
    poll_fn(|cx| {
        poll_pump(
            &mut upstream,
            &mut nowhere,
            &mut meter,
            &mut trailers,
            false,
            cx,
        )
    })
    .await
    .ok()?;
    Some((head.status, answer.keep_alive && upstream.is_done()))
}

/// Bytes as a body.
struct Kept {
    bytes: Vec<u8>,
    at: usize,
}

impl Source for Kept {
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        Poll::Ready(Ok(self.at < self.bytes.len()))
    }

    fn data(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn consume(&mut self, count: usize) -> Result<(), ReadError> {
        self.at += count;
        Ok(())
    }

    fn trailers(&self, _: &mut Head) -> bool {
        false
    }
}
