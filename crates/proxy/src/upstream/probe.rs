//! What one active check asks of a host and what the answer means: an HTTP
//! request, grpc.health.v1, or bytes over TCP.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use lateen_proxy_core::config::cluster::{
    HeaderCase, HealthCheck, HealthProbe, ProbeHeaders, TransportSocket,
};
use lateen_proxy_core::config::{AppendAction, Name};
use lateen_proxy_core::framing::BodyLength;

use super::cluster::ClusterState;
use super::connect;
use super::host::Host;
use super::http2::{self, H2Client};
use crate::http::head::Head;
use crate::http::known::Known;
use crate::http::reader::H1Reader;
use crate::http::upstream::{H1Receiver, Receiver};
use crate::http1::{Framing, case, write_request_head};
use crate::io::Io;

/// Most bytes that a TCP check looks through, and most of a gRPC answer.
const MOST: usize = 64 * 1024;
const AGENT: &[u8] = b"Envoy/HC";

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As expected.
    Good {
        /// The host says `x-envoy-degraded`.
        degraded: bool,
        /// The service's name was looked at.
        verified: bool,
    },
    /// An answer that says no.
    Bad {
        /// The host says `x-envoy-immediate-health-check-fail`.
        excluded: bool,
        /// The service's name was looked at.
        verified: bool,
    },
    /// An answer that is to be asked for again.
    Retriable,
    /// No connection, or it ended.
    NoAnswer,
    /// No answer in time.
    TimedOut,
}

impl Finding {
    const GOOD: Self = Self::Good {
        degraded: false,
        verified: false,
    };

    /// What is found when the time is over. A server of gRPC that was told how long it has gives
    /// up at the same moment, and which end is seen first says nothing.
    pub fn late(self) -> Self {
        match self {
            Self::Good { .. } => self,
            _ => Self::TimedOut,
        }
    }
}

/// Asks a host, over one connection where it is kept.
#[derive(Debug, Default)]
pub struct Prober {
    kept: Option<Kept>,
}

#[derive(Debug)]
enum Kept {
    H1(Box<(Io, H1Reader)>),
    H2(Rc<H2Client>),
}

/// What came back.
#[derive(Default)]
struct Answer {
    head: Head,
    body: Vec<u8>,
    trailers: Head,
}

impl Prober {
    /// Closes the kept connection.
    pub fn close(&mut self) {
        self.kept = None;
    }

    /// Asks once.
    pub async fn probe(
        &mut self,
        cluster: &Rc<ClusterState>,
        host: &Rc<Host>,
        check: &HealthCheck,
    ) -> Finding {
        let done = match &check.probe {
            HealthProbe::Tcp { send, receive } => {
                let ask = (&**send, &**receive);
                self.tcp(cluster, host, check, ask).await
            }
            HealthProbe::Http {
                path,
                method,
                headers,
                http2,
                ..
            } => {
                let mut head = request(cluster, host, check, method, path);
                edit(&mut head, headers);
                BodyLength::Empty.settle_request(&mut head);
                let asked = match http2 {
                    true => self.http2(cluster, host, check, &head, &[]).await,
                    false => self.http1(cluster, host, check, &head).await,
                };
                asked.map(|answer| judge(check, &answer))
            }
            HealthProbe::Grpc {
                service_name,
                headers,
                ..
            } => {
                let head = grpc_request(cluster, host, check, headers);
                let message = grpc_message(service_name);
                let asked = self.http2(cluster, host, check, &head, &message).await;
                asked.map(|answer| grpc_judge(&answer))
            }
        };
        done.unwrap_or_else(|()| {
            self.kept = None;
            Finding::NoAnswer
        })
    }

    /// The kept connection, if nothing came on it, its end included.
    fn quiet(&mut self) -> Option<Box<(Io, H1Reader)>> {
        let Some(Kept::H1(mut kept)) = self.kept.take() else {
            return None;
        };
        let (io, reader) = &mut *kept;
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let quiet = reader.buf.is_empty() && reader.buf.poll_fill(io, &mut cx).is_pending();
        quiet.then_some(kept)
    }

    async fn open(
        cluster: &Rc<ClusterState>,
        host: &Rc<Host>,
        check: &HealthCheck,
    ) -> Result<Io, ()> {
        let opened = connect::open_for_check(cluster, host, check).await;
        opened.map_err(|error| {
            tracing::debug!(target: crate::logger::HC, host = %host.text, ?error, "health check");
        })
    }

    async fn tcp(
        &mut self,
        cluster: &Rc<ClusterState>,
        host: &Rc<Host>,
        check: &HealthCheck,
        (send, receive): (&[u8], &[Vec<u8>]),
    ) -> Result<Finding, ()> {
        let good = Ok(Finding::GOOD);
        let io = match self.quiet() {
            Some(kept) => kept.0,
            None => Self::open(cluster, host, check).await?,
        };
        if receive.is_empty() {
            // The connection was the question.
            return good;
        }
        io.write_all(send).await.map_err(|_| ())?;
        let mut got = Vec::new();
        let mut chunk = [0; 2048];
        while !holds(&got, receive) {
            match io.read(&mut chunk).await {
                Ok(count) if count > 0 && got.len() < MOST => {
                    got.extend_from_slice(&chunk[..count])
                }
                _ => return Err(()),
            }
        }
        self.kept = Some(Kept::H1(Box::new((io, H1Reader::default()))));
        good
    }

    async fn http1(
        &mut self,
        cluster: &Rc<ClusterState>,
        host: &Rc<Host>,
        check: &HealthCheck,
        request: &Head,
    ) -> Result<Answer, ()> {
        let mut kept = match self.quiet() {
            Some(kept) => kept,
            None => Box::new((Self::open(cluster, host, check).await?, H1Reader::default())),
        };
        let (io, reader) = &mut *kept;
        let mut bytes = Vec::new();
        write_request_head(request, Framing::None, &mut bytes);
        let case = cluster.config.http.http1.header_case;
        if case == HeaderCase::ProperCase {
            case::rewrite(&mut bytes, None, case);
        }
        io.write_all(&bytes).await.map_err(|_| ())?;
        let receiver = Receiver::H1(H1Receiver {
            io,
            reader,
            to_head: request.method() == b"HEAD",
            upgrade: false,
            inform: false,
            seen: 0,
        });
        let (answer, keep) = receive(receiver).await?;
        if keep {
            self.kept = Some(Kept::H1(kept));
        }
        Ok(answer)
    }

    async fn http2(
        &mut self,
        cluster: &Rc<ClusterState>,
        host: &Rc<Host>,
        check: &HealthCheck,
        request: &Head,
        body: &[u8],
    ) -> Result<Answer, ()> {
        let client = match self.kept.take() {
            Some(Kept::H2(client)) if !client.closed.get() && client.has_room() => client,
            _ => {
                let io = Self::open(cluster, host, check).await?;
                http2::start_for_check(cluster, io)
            }
        };
        let stream = client.clone().begin();
        let handle = stream.open(request, &[], body.is_empty()).ok_or(())?;
        let mut sent = 0;
        while sent < body.len() {
            let piece = poll_fn(|cx| handle.poll_data(&body[sent..], cx)).await;
            sent += piece.map_err(|_| ())?;
        }
        if !body.is_empty() {
            handle.finish(None).map_err(|_| ())?;
        }
        let (answer, _) = receive(Receiver::H2(&handle, false)).await?;
        self.kept = Some(Kept::H2(client));
        Ok(answer)
    }
}

/// The whole answer, and whether its connection may be used again.
async fn receive(mut receiver: Receiver<'_>) -> Result<(Answer, bool), ()> {
    let mut answer = Answer::default();
    let came = poll_fn(|cx| receiver.poll_head(&mut answer.head, cx)).await;
    let came = came.map_err(|_| ())?;
    let mut body = receiver.body();
    while poll_fn(|cx| body.poll_ready(cx)).await.map_err(|_| ())? {
        let data = body.data();
        let count = data.len();
        // What is beyond is read, and of no meaning.
        let room = MOST.saturating_sub(answer.body.len()).min(count);
        answer.body.extend_from_slice(&data[..room]);
        body.consume(count).map_err(|_| ())?;
    }
    body.trailers(&mut answer.trailers);
    Ok((answer, came.keep_alive && body.is_done()))
}

/// Whether the fragments are found one after another.
fn holds(got: &[u8], fragments: &[Vec<u8>]) -> bool {
    let mut rest = got;
    fragments
        .iter()
        .all(|fragment| match memchr::memmem::find(rest, fragment) {
            Some(at) => {
                rest = &rest[at + fragment.len()..];
                true
            }
            None => false,
        })
}

fn judge(check: &HealthCheck, answer: &Answer) -> Finding {
    let HealthProbe::Http {
        expected,
        retriable,
        service,
        ..
    } = &check.probe
    else {
        return Finding::NoAnswer;
    };
    let (head, status) = (&answer.head, answer.head.status);
    let within = |list: &[(u16, u16)]| list.iter().any(|(from, to)| (*from..*to).contains(&status));
    let good = match expected.is_empty() {
        true => status == 200,
        false => within(expected),
    };
    if !good && within(retriable) {
        return Finding::Retriable;
    }
    let of = head.first(b"x-envoy-upstream-healthchecked-cluster");
    let named = service.as_ref().map(|s| s.matches(of.unwrap_or_default()));
    let verified = good && named.is_some();
    if good && named != Some(false) {
        return Finding::Good {
            degraded: head.first(b"x-envoy-degraded").is_some(),
            verified,
        };
    }
    Finding::Bad {
        excluded: head.first(b"x-envoy-immediate-health-check-fail").is_some(),
        verified,
    }
}

/// The host's own name for checks, else the check's, else the cluster's.
fn authority(cluster: &ClusterState, host: &Host, check: &HealthCheck) -> String {
    let none = Name::default();
    let own = host.endpoint.health_check.as_ref();
    let own = own.map_or(&none, |check| &check.hostname);
    let asked = match &check.probe {
        HealthProbe::Http { host, .. } => host,
        HealthProbe::Grpc { authority, .. } => authority,
        HealthProbe::Tcp { .. } => own,
    };
    let names = [own, asked, &cluster.config.name];
    let found = names.into_iter().find(|name| !name.is_empty());
    found.map_or_else(String::new, |name| name.to_string())
}

fn request(
    cluster: &ClusterState,
    host: &Host,
    check: &HealthCheck,
    method: &str,
    path: &str,
) -> Head {
    let criteria = check.transport_criteria.as_ref();
    let transport = cluster
        .config
        .transport_for(criteria.unwrap_or(&host.endpoint.metadata));
    let mut head = Head::new();
    head.set_method(method.as_bytes());
    head.set_scheme(match transport {
        TransportSocket::Tls(_) => b"https",
        TransportSocket::RawBuffer => b"http",
    });
    head.set_authority(authority(cluster, host, check).as_bytes());
    head.set_path(path.as_bytes());
    head.set_known(Known::UserAgent, AGENT);
    head
}

fn grpc_request(
    cluster: &ClusterState,
    host: &Host,
    check: &HealthCheck,
    headers: &ProbeHeaders,
) -> Head {
    let path = "/grpc.health.v1.Health/Check";
    let mut head = request(cluster, host, check, "POST", path);
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        head.set(name.as_bytes(), value.as_bytes());
    }
    head.set(b"grpc-timeout", grpc_timeout(check.timeout).as_bytes());
    edit(&mut head, headers);
    head
}

/// At most eight digits and a unit (gRPC over HTTP/2).
fn grpc_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        ms @ ..=99_999_999 => format!("{ms}m"),
        ms => format!("{}S", (ms / 1000).min(99_999_999)),
    }
}

fn edit(head: &mut Head, headers: &ProbeHeaders) {
    for name in &headers.remove {
        head.remove(name.as_bytes());
    }
    for (name, value, action) in &headers.add {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        match (action, head.first(name).is_some()) {
            (AppendAction::AppendIfExistsOrAdd, _) | (AppendAction::AddIfAbsent, false) => {
                head.add(name, value);
            }
            (AppendAction::OverwriteIfExistsOrAdd, _) | (AppendAction::OverwriteIfExists, true) => {
                head.set(name, value);
            }
            (AppendAction::AddIfAbsent, true) | (AppendAction::OverwriteIfExists, false) => {}
        }
    }
}

/// grpc.health.v1.Health/Check answers with a message whose field 1 is 1
/// (SERVING).
fn grpc_judge(answer: &Answer) -> Finding {
    let status = |head: &Head| head.first(b"grpc-status").map(|v| v == b"0");
    let ok = status(&answer.trailers).or_else(|| status(&answer.head));
    let serving = answer.head.status == 200 && ok == Some(true) && says_serving(&answer.body);
    match serving {
        true => Finding::GOOD,
        false => Finding::Bad {
            excluded: false,
            verified: false,
        },
    }
}

/// A HealthCheckRequest with the service's name as field 1, framed for gRPC.
fn grpc_message(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

/// Whether a HealthCheckResponse's only known field, the status, is SERVING.
fn says_serving(framed: &[u8]) -> bool {
    let Some((frame, message)) = framed.split_at_checked(5) else {
        return false;
    };
    let length = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]) as usize;
    frame[0] == 0 && length == message.len() && message == [0x08, 0x01]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_when_the_time_is_over_is_no_answer() {
        let bad = Finding::Bad {
            excluded: false,
            verified: false,
        };
        assert_eq!(bad.late(), Finding::TimedOut);
        assert_eq!(Finding::NoAnswer.late(), Finding::TimedOut);
        assert_eq!(Finding::GOOD.late(), Finding::GOOD);
    }

    #[test]
    fn fragments_come_in_order() {
        let all = |list: &[&str]| {
            list.iter()
                .map(|s| s.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        assert!(holds(b"+PONG ok", &all(&["PONG", "ok"])));
        assert!(!holds(b"ok PONG", &all(&["PONG", "ok"])));
        assert!(!holds(b"aa", &all(&["aa", "a"])), "a byte counts once");
    }

    #[test]
    fn grpc_messages() {
        assert_eq!(grpc_message(""), [0; 5]);
        assert_eq!(grpc_message("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(&grpc_message(&"x".repeat(200))[4..8], &[203, 0x0a, 0xc8, 1]);
        assert!(says_serving(&[0, 0, 0, 0, 2, 8, 1]));
        for bad in [
            &[][..],
            &[0; 5],
            &[0, 0, 0, 0, 2, 8, 2],
            &[1, 0, 0, 0, 2, 8, 1],
        ] {
            assert!(!says_serving(bad));
        }
    }
}
