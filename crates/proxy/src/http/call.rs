//! Requests that the proxy makes itself: copies of a client's (mirrors), key sets, authorisation
//! checks. One head and body out, one answer back, within a time and a length. A call that is
//! dropped gives its connection up and is counted out again.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::jwt::HttpUri;
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::framing::BodyLength;

use super::attempt::fits_pool;
use super::head::Head;
use super::known::Known;
use super::reader::ReadError;
use super::upstream::{H1Receiver, Receiver};
use super::writer::{BodyWriter, H2Writer, Meter, Source, poll_pump};
use crate::http1::{Framing, write_request_head};
use crate::io::{Timer, timer};
use crate::upstream::host::{H1Client, add_one};
use crate::upstream::http2::H2Stream;
use crate::upstream::{
    Choice, ClusterState, ConnectOptions, Host, HttpConnection, Origin, connect,
};
use crate::worker::Worker;

/// A request of the proxy's own.
#[derive(Debug)]
pub struct Call {
    /// Its head; `content-length` where there is a body.
    pub head: Head,
    /// Its body.
    pub body: Vec<u8>,
    /// What follows it: bytes that are large and come from elsewhere.
    pub tail: Vec<u8>,
    /// For everything, connecting included.
    pub timeout: Duration,
    /// Longest body of the answer, bytes; none = the body is thrown away.
    pub longest: Option<usize>,
    /// May go out once more where a kept connection turns out to be closed.
    pub repeatable: bool,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Answer {
    /// The head.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers, where there were any.
    pub trailers: Head,
}

/// Why nothing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The cluster is not there.
    #[error("unknown cluster")]
    NoCluster,
    /// It has no healthy host.
    #[error("no healthy host")]
    NoHost,
    /// A breaker stopped the call.
    #[error("overflow")]
    Overflow,
    /// No connection, or it broke.
    #[error("connection failed or broke")]
    Broken,
    /// Too long.
    #[error("the answer is too long")]
    TooLong,
    /// Too late.
    #[error("timed out")]
    TimedOut,
}

/// The head of a request to an address that the configuration names.
pub fn own_request(worker: &Worker, method: &[u8], uri: &HttpUri) -> Head {
    let mut head = Head::new();
    head.set_method(method);
    head.set_scheme(uri.scheme.as_bytes());
    head.set_authority(uri.authority.as_bytes());
    head.set_path(uri.path.as_bytes());
    mark_own(worker, &mut head, uri.timeout);
    head
}

/// What every request of the proxy's own says of itself.
pub fn mark_own(worker: &Worker, head: &mut Head, timeout: Duration) {
    head.set_known(Known::XEnvoyInternal, b"true");
    if let Some(ip) = worker.node_ip {
        head.set_known(Known::XForwardedFor, ip.to_string().as_bytes());
    }
    if !timeout.is_zero() {
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        head.set_number(Known::XEnvoyExpectedRqTimeoutMs, ms);
    }
}

impl Call {
    /// Sends the request to a cluster of that name and waits for the whole answer.
    pub async fn send(&mut self, worker: &Rc<Worker>, cluster: &Name) -> Result<Answer, CallError> {
        let cluster = worker.clusters.get(cluster).ok_or(CallError::NoCluster)?;
        self.send_to(&cluster, false).await
    }

    /// Sends it to a cluster; `h2` says what a client of it speaks, for clusters that speak the
    /// same.
    pub async fn send_to(
        &mut self,
        cluster: &Rc<ClusterState>,
        h2: bool,
    ) -> Result<Answer, CallError> {
        let length = match self.body.len() + self.tail.len() {
            0 => BodyLength::Empty,
            length => BodyLength::Known(length as u64),
        };
        length.settle_request(&mut self.head);
        let timer = Timer::new();
        let limit = Some(self.timeout).filter(|t| !t.is_zero());
        timer.set(timer::deadline(timer::now_ms(), limit));
        match timer.race(self.run(cluster, h2)).await {
            Some(answered) => answered,
            None => {
                cluster.stats.cells.upstream_rq_timeout.inc();
                Err(CallError::TimedOut)
            }
        }
    }

    async fn run(&self, cluster: &Rc<ClusterState>, h2: bool) -> Result<Answer, CallError> {
        let Some(host) = cluster.choose(&Choice::default()) else {
            cluster.stats.cells.upstream_cx_none_healthy.inc();
            return Err(CallError::NoHost);
        };
        let options = ConnectOptions {
            downstream_h2: h2,
            authority: match cluster.config.http.auto_sni {
                true => self.head.authority().to_vec(),
                false => Vec::new(),
            },
            // The proxy asks on its own behalf, as in Envoy.
            origin: Origin::default(),
            alpn: &[],
            raw: false,
        };
        let begun = timer::now_ms();
        let busy = Busy::new(&host);
        cluster.stats.cells.upstream_rq_total.inc();
        let mut again = self.repeatable;
        let answered = loop {
            let (connection, reused) = match connect::http(cluster, &host, 0, &options).await {
                Ok(connected) => connected,
                Err(_) => break Err(CallError::Broken),
            };
            let Some(_active) = cluster.active_request(0) else {
                connection.give_back(cluster, &host, true);
                break Err(CallError::Overflow);
            };
            let answered = match connection {
                HttpConnection::H1(client) => self.over_h1(cluster, &host, client).await,
                HttpConnection::H2(stream) => self.over_h2(stream).await,
            };
            let stale = reused && answered.as_ref().err() == Some(&CallError::Broken);
            if !(stale && std::mem::take(&mut again)) {
                break answered;
            }
        };
        drop(busy);
        match &answered {
            Ok(answer) => {
                let (status, ms) = (answer.head.status, timer::now_ms() - begun);
                host.note_answer(cluster, status);
                let none = ResponseFlags::NONE;
                cluster.stats.finished(status, Some(ms), none, true);
            }
            Err(_) => host.note_failure(cluster),
        }
        answered
    }

    fn is_empty(&self) -> bool {
        self.body.is_empty() && self.tail.is_empty()
    }

    async fn over_h1(
        &self,
        cluster: &Rc<ClusterState>,
        host: &Rc<Host>,
        mut client: Box<H1Client>,
    ) -> Result<Answer, CallError> {
        let open = Open(host);
        client.begins();
        let framing = match () {
            () if self.is_empty() => Framing::None,
            () if self.head.has(Known::ContentLength) => Framing::Length(1),
            () => Framing::Chunked,
        };
        let parts = &mut *client;
        parts
            .writer
            .begin(framing == Framing::Chunked, self.head.names(), |bytes| {
                write_request_head(&self.head, framing, bytes);
            });
        let receiver = Receiver::H1(H1Receiver {
            io: &parts.io,
            reader: &mut parts.reader,
            to_head: self.head.method() == b"HEAD",
            upgrade: false,
            inform: false,
            seen: 0,
        });
        let sender = BodyWriter::H1(&parts.io, &mut parts.writer);
        let (answer, keep) = self.exchange(receiver, sender).await?;
        client.rests();
        if keep && fits_pool(&client, cluster) {
            std::mem::forget(open);
            cluster.watch_idle(host);
            host.put_idle(client);
        }
        Ok(answer)
    }

    async fn over_h2(&self, stream: H2Stream) -> Result<Answer, CallError> {
        let end = self.is_empty();
        let handle = stream.open(&self.head, &[], end).ok_or(CallError::Broken)?;
        let writer = BodyWriter::H2(H2Writer::new(&handle, end));
        let (answer, _) = self.exchange(Receiver::H2(&handle, false), writer).await?;
        Ok(answer)
    }

    /// Sends the body and reads the answer; whether the connection may go on.
    async fn exchange(
        &self,
        mut receiver: Receiver<'_>,
        mut sender: BodyWriter<'_>,
    ) -> Result<(Answer, bool), CallError> {
        let mut source = Kept {
            parts: [&self.body, &self.tail],
        };
        let (mut meter, mut nothing) = (Meter::default(), Head::new());
        let sent = poll_fn(|cx| {
            let (source, sender) = (&mut source, &mut sender);
            poll_pump(source, sender, &mut meter, &mut nothing, false, cx)
        });
        sent.await.map_err(|_| CallError::Broken)?;
        let mut answer = Answer::default();
        let came = poll_fn(|cx| receiver.poll_head(&mut answer.head, cx)).await;
        let came = came.map_err(|_| CallError::Broken)?;
        let mut body = receiver.body();
        while poll_fn(|cx| body.poll_ready(cx))
            .await
            .map_err(|_| CallError::Broken)?
        {
            let data = body.data();
            let count = data.len();
            match self.longest {
                Some(longest) if answer.body.len() + count > longest => {
                    return Err(CallError::TooLong);
                }
                Some(_) => answer.body.extend_from_slice(data),
                None => {}
            }
            body.consume(count).map_err(|_| CallError::Broken)?;
        }
        body.trailers(&mut answer.trailers);
        Ok((answer, came.keep_alive && body.is_done()))
    }
}

/// A host with one more request under way.
pub(crate) struct Busy<'h>(&'h Host);

impl<'h> Busy<'h> {
    /// From here on, until it is dropped.
    pub(crate) fn new(host: &'h Host) -> Self {
        host.active.set(host.active.get() + 1);
        add_one(&host.counts.requests);
        Self(host)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

/// A connection that ends unless it goes back to its pool.
struct Open<'h>(&'h Rc<Host>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connection_closed();
    }
}

/// Bytes as a body: what is left of each part.
struct Kept<'b> {
    parts: [&'b [u8]; 2],
}

impl Source for Kept<'_> {
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        Poll::Ready(Ok(!self.data().is_empty()))
    }

    fn data(&self) -> &[u8] {
        let [first, then] = self.parts;
        if first.is_empty() { then } else { first }
    }

    fn consume(&mut self, count: usize) -> Result<(), ReadError> {
        let [first, then] = &mut self.parts;
        let part = if first.is_empty() { then } else { first };
        *part = part.get(count..).unwrap_or_default();
        Ok(())
    }

    fn trailers(&self, _: &mut Head) -> bool {
        false
    }
}
