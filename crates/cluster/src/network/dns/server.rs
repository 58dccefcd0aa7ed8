//! The DNS sockets: reads questions, asks the zone or the forwarder, writes answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::Ipv4Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::forward::Forwarder;
use super::zone::{Answer, Data, Kind, Zone};
use crate::network::view::View;

/// Seconds an answer about the cluster may be remembered: endpoints move fast.
const TTL: u32 = 5;
/// How many aliases are followed within one question.
const MAX_ALIASES: usize = 4;
/// How long a TCP client may stay silent.
const IDLE: Duration = Duration::from_secs(10);

/// Answers questions about one cluster.
#[derive(Debug)]
pub struct Resolver {
    view: Arc<ArcSwap<View>>,
    domain: String,
    pods: Ipv4Net,
    services: Ipv4Net,
    forwarder: Forwarder,
}

impl Resolver {
    /// A resolver over the current view.
    pub fn new(
        view: Arc<ArcSwap<View>>,
        domain: String,
        pods: Ipv4Net,
        services: Ipv4Net,
        forwarder: Forwarder,
    ) -> Self {
        Self {
            view,
            domain,
            pods,
            services,
            forwarder,
        }
    }

    fn look_up(&self, name: &str, kind: Kind) -> Answer {
        let view = self.view.load();
        let zone = Zone {
            view: &view,
            domain: &self.domain,
            pods: self.pods,
            services: self.services,
        };
        zone.answer(name, kind)
    }

    /// The answer to a query in wire form; `None` when it deserves none (not a query at all).
    pub async fn respond(&self, bytes: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let Ok(query) = Message::from_vec(bytes) else {
            let id = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
            return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)
                .to_vec()
                .ok();
        };
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.add_queries(query.queries.iter().cloned());
        let Some(question) = query.queries.first() else {
            reply.metadata.response_code = ResponseCode::FormErr;
            return reply.to_vec().ok();
        };
        if query.metadata.op_code != OpCode::Query {
            reply.metadata.response_code = ResponseCode::NotImp;
            return reply.to_vec().ok();
        }
        if let Some(foreign) = self.answer_into(&mut reply, question, bytes, tcp).await {
            return Some(foreign);
        }
        let encoded = reply.to_vec().ok()?;
        if tcp || encoded.len() <= usize::from(query.max_payload().max(512)) {
            return Some(encoded);
        }
        reply.truncate().to_vec().ok()
    }

    /// Fills the reply, or returns a foreign answer to pass on as it is.
    async fn answer_into(
        &self,
        reply: &mut Message,
        question: &Query,
        bytes: &[u8],
        tcp: bool,
    ) -> Option<Vec<u8>> {
        let kind = match question.query_type() {
            RecordType::A => Kind::A,
            RecordType::SRV => Kind::Srv,
            RecordType::PTR => Kind::Ptr,
            _ => Kind::Other,
        };
        let mut owner = question.name().clone();
        for step in 0..=MAX_ALIASES {
            let text = owner.to_ascii().to_lowercase();
            match self.look_up(text.trim_end_matches('.'), kind) {
                Answer::Foreign if step == 0 => {
                    if let Some(answer) = self.forwarder.ask(bytes, tcp).await {
                        return Some(answer);
                    }
                    reply.metadata.response_code = ResponseCode::ServFail;
                }
                Answer::Foreign => self.chase(reply, owner, question.query_type()).await,
                Answer::Missing => {
                    reply.metadata.authoritative = true;
                    reply.metadata.response_code = ResponseCode::NXDomain;
                    self.add_authority(reply);
                }
                Answer::Found {
                    records,
                    additional,
                } => {
                    reply.metadata.authoritative = true;
                    self.add_found(reply, &owner, records, additional);
                }
                Answer::Alias(target) => {
                    reply.metadata.authoritative = true;
                    let target = absolute(&target)?;
                    reply.add_answer(Record::from_rdata(
                        owner,
                        TTL,
                        RData::CNAME(CNAME(target.clone())),
                    ));
                    owner = target;
                    continue;
                }
            }
            break;
        }
        None
    }

    /// Adds what the outside world says about the target of an alias.
    async fn chase(&self, reply: &mut Message, target: Name, record_type: RecordType) {
        let mut query = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(target, record_type));
        let Ok(bytes) = query.to_vec() else {
            return;
        };
        let answer = self.forwarder.ask(&bytes, false).await;
        if let Some(answer) = answer.and_then(|bytes| Message::from_vec(&bytes).ok()) {
            reply.add_answers(answer.answers);
        }
    }

    fn add_found(
        &self,
        reply: &mut Message,
        owner: &Name,
        mut records: Vec<Data>,
        additional: Vec<(String, std::net::Ipv4Addr)>,
    ) {
        if records.is_empty() {
            self.add_authority(reply);
        }
        fastrand::shuffle(&mut records);
        for record in records {
            let data = match record {
                Data::A(address) => Some(RData::A(A(address))),
                Data::Srv(port, target) => {
                    absolute(&target).map(|target| RData::SRV(SRV::new(0, 100, port, target)))
                }
                Data::Ptr(target) => absolute(&target).map(|target| RData::PTR(PTR(target))),
            };
            if let Some(data) = data {
                reply.add_answer(Record::from_rdata(owner.clone(), TTL, data));
            }
        }
        for (name, address) in additional {
            if let Some(name) = absolute(&name) {
                reply.add_additional(Record::from_rdata(name, TTL, RData::A(A(address))));
            }
        }
    }

    /// The zone's start of authority, which tells clients how long "no" holds.
    fn add_authority(&self, reply: &mut Message) {
        let (Some(zone), Some(server), Some(mail)) = (
            absolute(&self.domain),
            absolute(&format!("ns.dns.{}", self.domain)),
            absolute(&format!("hostmaster.{}", self.domain)),
        ) else {
            return;
        };
        let soa = SOA::new(server, mail, 1, 7200, 1800, 86400, TTL);
        reply.add_authority(Record::from_rdata(zone, TTL, RData::SOA(soa)));
    }
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The listening sockets of a resolver.
#[derive(Debug)]
pub struct DnsServer {
    udp: UdpSocket,
    tcp: TcpListener,
    resolver: Arc<Resolver>,
}

impl DnsServer {
    /// Binds both transports.
    ///
    /// # Errors
    /// When the address is in use or not local.
    pub async fn bind(address: SocketAddr, resolver: Resolver) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(Self {
            udp,
            tcp,
            resolver: Arc::new(resolver),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until dropped.
    pub async fn serve(self) {
        let udp = Arc::new(self.udp);
        let mut clients = JoinSet::new();
        let mut buf = vec![0; 4096];
        loop {
            tokio::select! {
                received = udp.recv_from(&mut buf) => {
                    // An ICMP error of an earlier answer shows up here; it concerns nobody else.
                    let Ok((n, from)) = received else { continue };
                    let (udp, resolver, query) = (Arc::clone(&udp), Arc::clone(&self.resolver), buf[..n].to_vec());
                    clients.spawn(async move {
                        if let Some(reply) = resolver.respond(&query, false).await {
                            // A client that left needs no answer.
                            drop(udp.send_to(&reply, from).await);
                        }
                    });
                }
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, _)) => {
                        let resolver = Arc::clone(&self.resolver);
                        clients.spawn(async move {
                            // A broken or silent client ends its own connection only.
                            drop(tcp_client(stream, &resolver).await);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "DNS accept failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = clients.join_next() => {}
            }
        }
    }
}

async fn tcp_client(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let Some(reply) = resolver.respond(&query, true).await else {
            return Ok(());
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&reply);
        stream.write_all(&framed).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::view::ServiceView;

    fn resolver(resolvers: Vec<SocketAddr>) -> Resolver {
        let mut view = View::default();
        let service = ServiceView {
            cluster_ips: vec![[10, 96, 0, 7].into()],
            ..ServiceView::default()
        };
        view.services
            .insert(("default".into(), "web".into()), service);
        let alias = ServiceView {
            external_name: Some("web.default.svc.cluster.local".into()),
            ..ServiceView::default()
        };
        view.services
            .insert(("default".into(), "alias".into()), alias);
        Resolver::new(
            Arc::new(ArcSwap::from_pointee(view)),
            "cluster.local".into(),
            "10.244.0.0/16".parse().unwrap(),
            "10.96.0.0/16".parse().unwrap(),
            Forwarder::new(resolvers),
        )
    }

    async fn ask(name: &str, record_type: RecordType) -> Message {
        let mut query = Message::new(77, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
        let reply = resolver(vec![])
            .respond(&query.to_vec().unwrap(), false)
            .await
            .unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.id, 77);
        reply
    }

    #[tokio::test]
    async fn questions_are_answered_in_wire_form() {
        let reply = ask("WEB.default.svc.cluster.local.", RecordType::A).await;
        assert_eq!(reply.answers[0].data, RData::A(A([10, 96, 0, 7].into())));
        assert!(reply.metadata.authoritative);
        let none = ask("web.default.svc.cluster.local.", RecordType::AAAA).await;
        assert!(none.answers.is_empty() && none.metadata.response_code == ResponseCode::NoError);
        assert_eq!(none.authorities.len(), 1);
        let missing = ask("x.default.svc.cluster.local.", RecordType::A).await;
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
        let alias = ask("alias.default.svc.cluster.local.", RecordType::A).await;
        assert_eq!(alias.answers.len(), 2);
        let foreign = ask("example.com.", RecordType::A).await;
        assert_eq!(foreign.metadata.response_code, ResponseCode::ServFail);
    }

    #[tokio::test]
    async fn garbage_is_no_panic() {
        let resolver = resolver(vec![]);
        assert!(resolver.respond(&[1], false).await.is_none());
        let reply = resolver.respond(&[1, 2, 0, 0, 0, 9], false).await.unwrap();
        assert_eq!(
            Message::from_vec(&reply).unwrap().metadata.response_code,
            ResponseCode::FormErr
        );
    }
}
