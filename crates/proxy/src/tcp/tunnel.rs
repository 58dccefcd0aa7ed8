//! TCP carried inside a request to an HTTP proxy (`tunneling_config`): a CONNECT, or a POST whose
//! body is one direction and whose answer the other. Nothing of the client's is read before the
//! proxy has accepted.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use lateen_proxy_core::config::cluster::TransportSocket;
use lateen_proxy_core::config::headers::AppendAction;
use lateen_proxy_core::config::istio::IstioStats;
use lateen_proxy_core::config::network_filter::Tunneling;
use lateen_proxy_core::config::{Metadata, TcpProxy};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::hash_policy;

use super::copy::{Ended, Limits, Moved, Side, copy};
use super::proxy::{choose, ended};
use super::record::TcpRecord;
use crate::conn::Connection;
use crate::http::call::Busy;
use crate::http::head::Head;
use crate::http::reader::{BodyReader, H1Reader};
use crate::http::record::now_ns;
use crate::http::upstream::{H1Receiver, Receiver};
use crate::http::writer::{BodyWriter, H1Writer, H2Writer, Meter, PumpError, poll_pump};
use crate::http1::{Framing, write_request_head};
use crate::http2::Reason;
use crate::io::timer::{self, NEVER};
use crate::io::{Buf, Timer};
use crate::tls::session::UpstreamSession;
use crate::upstream::host::H1Client;
use crate::upstream::http2::H2Stream;
use crate::upstream::{ClusterState, ConnectError, ConnectOptions, Host, HttpConnection, connect};

/// Why a tunnel did not come about.
#[derive(Debug)]
enum Refused {
    /// No connection.
    Connect(ConnectError),
    /// The proxy answered with something else than its consent.
    Status(u16),
    /// Or not with a whole answer.
    Answer,
    /// Its connection ended before a word of it.
    Gone,
    /// There is no request that could be sent.
    Host,
    /// It took too long.
    TimedOut,
}

/// A connection whose bytes are to travel inside a request.
pub(super) struct Asked<'a> {
    pub conn: &'a Rc<Connection>,
    pub cluster: &'a Rc<ClusterState>,
    pub config: &'a TcpProxy,
    pub tunneling: &'a Tunneling,
    pub criteria: &'a Metadata,
    pub telemetry: Option<&'a Arc<IstioStats>>,
    pub limits: Limits,
    pub timer: &'a Timer,
}

/// The request to one host.
struct Tunnel<'a, 'b> {
    asked: &'b Asked<'a>,
    host: &'b Rc<Host>,
}

impl Asked<'_> {
    /// Opens a tunnel, over to other hosts as often as configured, and serves it to its end.
    pub(super) async fn serve(&self, record: &mut TcpRecord) {
        let none: &[(&str, &str)] = &[];
        let client = Some(self.conn.remote.ip());
        let policies = &self.config.hash_policy;
        let hash = hash_policy::compute(policies, none, client, &mut || fastrand::u64(..));
        let cluster = self.cluster;
        let mut tried: Vec<Rc<Host>> = Vec::new();
        for attempt in 1..=self.config.max_connect_attempts.max(1) {
            let Some(host) = choose(self.conn, cluster, &tried, hash.hash, self.criteria) else {
                cluster.stats.cells.upstream_cx_none_healthy.inc();
                return record.flags.set(ResponseFlags::NO_HEALTHY_UPSTREAM);
            };
            record.attempts = attempt;
            record.host = Some(host.clone());
            record.connect.0 = now_ns();
            let Some(_active) = cluster.active_request(0) else {
                // As in Envoy, one more try that failed.
                let flag = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
                return record.flags.set(flag);
            };
            cluster.stats.cells.upstream_rq_total.inc();
            let busy = Busy::new(&host);
            let tunnel = Tunnel {
                asked: self,
                host: &host,
            };
            let ran = tunnel.run(record).await;
            drop(busy);
            match ran {
                Ok(moved) => return ended(self.conn, self.config, record, &moved),
                Err(Refused::Connect(ConnectError::Overflow)) => {
                    return record.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
                }
                Err(Refused::Connect(error)) => {
                    host.note_failure(cluster);
                    record.transport_failure = match &error {
                        ConnectError::Timeout => "connection_timeout".to_owned(),
                        error => connect::failure_details(error),
                    };
                }
                Err(Refused::Status(status)) => {
                    record.transport_failure = format!("tunnel_response:{status}");
                }
                Err(Refused::Answer | Refused::Gone) => {}
                Err(Refused::Host | Refused::TimedOut) => break,
            }
            tried.push(host);
        }
        record.flags.set(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        record
            .flags
            .set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
    }

    /// The proxy has consented, over a connection with this end and number.
    fn opened(
        &self,
        record: &mut TcpRecord,
        host: &Rc<Host>,
        (local, id): (SocketAddr, u64),
        tls: Option<Rc<UpstreamSession>>,
    ) {
        record.upstream_local = Some(local);
        record.upstream_tls = tls;
        record.reached.push((host.clone(), id));
        if let Some(filter) = self.telemetry {
            self.conn.worker.mesh.opened(record, filter);
        }
    }
}

impl Tunnel<'_, '_> {
    /// Asks for the tunnel and moves bytes until it ends.
    async fn run(&self, record: &mut TcpRecord) -> Result<Moved, Refused> {
        let Asked { conn, cluster, .. } = self.asked;
        let head = self.head(record).ok_or(Refused::Host)?;
        let options = ConnectOptions {
            origin: conn.origin(&cluster.config),
            authority: match cluster.config.http.auto_sni {
                true => head.authority().to_vec(),
                false => Vec::new(),
            },
            ..ConnectOptions::default()
        };
        loop {
            let made = connect::http(cluster, self.host, 0, &options).await;
            let (connection, reused) = made.map_err(Refused::Connect)?;
            record.connect.1 = now_ns();
            let ran = match connection {
                HttpConnection::H1(client) => self.over_h1(&head, client, record).await,
                HttpConnection::H2(stream) => self.over_h2(&head, stream, record).await,
            };
            match ran {
                // A kept connection that its server had closed: nothing was asked.
                Err(Refused::Gone) if reused => {}
                ran => return ran,
            }
        }
    }

    /// The request.
    fn head(&self, record: &TcpRecord) -> Option<Head> {
        let mut head = Head::new();
        let mut host = Vec::new();
        let tunneling = self.asked.tunneling;
        tunneling.host.write_text(record, false, &mut host);
        // What is made of others' words must not end the target of a request line.
        if host.iter().any(|b| !b.is_ascii_graphic()) {
            return None;
        }
        head.set_authority(&host);
        match &tunneling.post_path {
            Some(path) => {
                head.set_method(b"POST");
                head.set_path(path.as_bytes());
                let cluster = &self.asked.cluster.config;
                let transport = cluster.transport_for(&self.host.endpoint.metadata);
                let tls = matches!(transport, TransportSocket::Tls(_));
                head.set_scheme(if tls { b"https" } else { b"http" });
            }
            None => head.set_method(b"CONNECT"),
        }
        for edit in &tunneling.headers {
            let name = edit.name.as_bytes();
            let mut value = Vec::new();
            edit.value.write_header(record, &mut value);
            let there = head.first(name).is_some();
            if value.is_empty() && !edit.keep_empty {
                continue;
            }
            match edit.action {
                AppendAction::AddIfAbsent if there => {}
                AppendAction::OverwriteIfExists if !there => {}
                AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
                    head.set(name, &value);
                }
                AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => {
                    head.add(name, &value);
                }
            }
        }
        Some(head)
    }

    async fn over_h1(
        &self,
        head: &Head,
        mut client: Box<H1Client>,
        record: &mut TcpRecord,
    ) -> Result<Moved, Refused> {
        // Whatever becomes of it, it serves nobody else.
        let _closed = Closed(self.host);
        client.begins();
        let id = client.id();
        let posts = self.asked.tunneling.post_path.is_some();
        let framing = match posts {
            true => Framing::Chunked,
            false => Framing::None,
        };
        let parts = &mut *client;
        let writer = &mut parts.writer;
        writer.begin(posts, None, |bytes| {
            write_request_head(head, framing, bytes)
        });
        let sent = self.in_time(poll_fn(|cx| writer.poll_flush(&parts.io, cx)));
        sent.await?.map_err(|_| Refused::Gone)?;
        let mut receiver = H1Receiver {
            io: &parts.io,
            reader: &mut parts.reader,
            to_head: false,
            upgrade: false,
            inform: false,
            seen: 0,
        };
        let mut answer = Head::new();
        let came = self.in_time(poll_fn(|cx| receiver.poll_head(&mut answer, cx)));
        if came.await?.is_err() {
            return Err(match receiver.reader.buf.is_empty() {
                true => Refused::Gone,
                false => Refused::Answer,
            });
        }
        if !(200..300).contains(&answer.status) {
            return Err(Refused::Status(answer.status));
        }
        let own = (parts.io.local, id);
        let tls = parts.io.meters().and_then(|m| m.session());
        self.asked.opened(record, self.host, own, tls);
        if posts {
            let reader = BodyReader::H1(&parts.io, &mut parts.reader);
            let sink = BodyWriter::H1(&parts.io, &mut parts.writer);
            return Ok(self.pump(reader, sink).await);
        }
        let mut early = Buf::new();
        let down = Side::new(&self.asked.conn.io, &mut early);
        // What an accepted CONNECT says of its length has no meaning (RFC 9110 section 9.3.6).
        let up = Side::new(&parts.io, &mut parts.reader.buf);
        let moved = copy(down, up, self.asked.timer, self.asked.limits).await;
        if matches!(moved.ended, Ended::Downstream) {
            parts.io.reset_on_close();
        }
        Ok(moved)
    }

    async fn over_h2(
        &self,
        head: &Head,
        stream: H2Stream,
        record: &mut TcpRecord,
    ) -> Result<Moved, Refused> {
        let handle = stream.open(head, &[], false).ok_or(Refused::Answer)?;
        let mut receiver = Receiver::H2(&handle, false);
        let mut answer = Head::new();
        let came = self
            .in_time(poll_fn(|cx| receiver.poll_head(&mut answer, cx)))
            .await;
        let accepted = matches!(came, Ok(Ok(_))) && answer.status == 200;
        if !accepted {
            handle.reset(Reason::CANCEL);
            came?.map_err(|_| Refused::Answer)?;
            return Err(Refused::Status(answer.status));
        }
        let client = &stream.client;
        let own = (client.local, client.id());
        self.asked.opened(record, self.host, own, client.session());
        let sink = BodyWriter::H2(H2Writer::new(&handle, false));
        Ok(self.pump(receiver.body(), sink).await)
    }

    /// Within the time that a connection may idle or last.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Refused> {
        let idle = timer::deadline(timer::now_ms(), self.asked.limits.idle);
        let until = match self.asked.limits.until {
            0 => NEVER,
            until => until,
        };
        self.asked.timer.set(idle.min(until));
        let done = self.asked.timer.race(work).await;
        self.asked.timer.set(NEVER);
        done.ok_or(Refused::TimedOut)
    }

    /// Moves bytes where the upstream's side is framed.
    async fn pump(&self, mut from_up: BodyReader<'_>, mut to_up: BodyWriter<'_>) -> Moved {
        let io = &self.asked.conn.io;
        let (mut reader, mut writer) = (H1Reader::default(), H1Writer::default());
        reader.begin(Framing::Close);
        let mut from_down = BodyReader::H1(io, &mut reader);
        let mut to_down = BodyWriter::H1(io, &mut writer);
        let (mut upward, mut downward) = (Meter::default(), Meter::default());
        let (mut none, mut done) = (Head::new(), (false, false));
        let mut idle_at = timer::deadline(timer::now_ms(), self.asked.limits.idle);
        let until = match self.asked.limits.until {
            0 => NEVER,
            until => until,
        };
        let ended = poll_fn(|cx| {
            if !done.0 {
                let (from, to) = (&mut from_down, &mut to_up);
                match poll_pump(from, to, &mut upward, &mut none, false, cx) {
                    Poll::Ready(Ok(())) => done.0 = true,
                    Poll::Ready(Err(PumpError::Source(_))) => {
                        return Poll::Ready(Ended::Downstream);
                    }
                    Poll::Ready(Err(PumpError::Sink(_))) => return Poll::Ready(Ended::Upstream),
                    Poll::Pending => {}
                }
            }
            if !done.1 {
                let (from, to) = (&mut from_up, &mut to_down);
                match poll_pump(from, to, &mut downward, &mut none, false, cx) {
                    Poll::Ready(Ok(())) => done.1 = to_down.poll_close(cx).is_ready(),
                    Poll::Ready(Err(PumpError::Source(_))) => return Poll::Ready(Ended::Upstream),
                    Poll::Ready(Err(PumpError::Sink(_))) => {
                        return Poll::Ready(Ended::Downstream);
                    }
                    Poll::Pending => {}
                }
            }
            if done == (true, true) {
                return Poll::Ready(Ended::Finished);
            }
            if to_up.poll_reset(cx).is_ready() {
                return Poll::Ready(Ended::Upstream);
            }
            if std::mem::take(&mut upward.moved) | std::mem::take(&mut downward.moved) {
                idle_at = timer::deadline(timer::now_ms(), self.asked.limits.idle);
            }
            self.asked.timer.set(idle_at.min(until));
            self.asked.timer.poll(cx).map(|()| match idle_at <= until {
                true => Ended::Idle,
                false => Ended::TooOld,
            })
        })
        .await;
        self.asked.timer.set(NEVER);
        if ended != Ended::Finished {
            to_up.abort(Reason::CANCEL);
        }
        Moved {
            upward: upward.bytes,
            downward: downward.bytes,
            ended,
            first: None,
        }
    }
}

/// A connection that is gone when this is.
struct Closed<'h>(&'h Rc<Host>);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.connection_closed();
    }
}
