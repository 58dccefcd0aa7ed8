//! Istio's standard metrics. A set of labels becomes a slot at its first use;
//! after that a request is one look-up by a small key and a few plain adds.

use std::cell::RefCell;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use lateen_proxy_core::access_log::Record as _;
use lateen_proxy_core::config::istio::IstioStats;
use lateen_proxy_core::config::{Metadata, Name, TrafficDirection, Value};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::router::is_grpc;
use lateen_proxy_core::stats::{Counter, Histogram, Registry};

use super::labels::{self, Call, Labels, Texts};
use super::workload::{Own, Workload};
use crate::conn::Connection;
use crate::http::record::StreamRecord;
use crate::tcp::TcpRecord;
use crate::upstream::{ClusterState, Host};

/// Most distinct values of one kind that are told apart in a worker; what
/// comes after is told as unknown, so that a client cannot grow the table.
const MOST: usize = 4096;
/// Most sets of labels of HTTP, and of TCP, in a worker; what comes after is counted without its
/// peer and service. A set takes some 6 KiB.
const SETS: usize = 8192;
/// Bytes of peers' headers that are kept to be known again.
const HEADERS: usize = 2 << 20;
/// The last status that gRPC defines.
const LAST_STATUS: u32 = 16;
/// Longest host that is told, in bytes (RFC 1035 section 2.3.4).
const LONGEST_HOST: usize = 255;
/// Longest SPIFFE id, in bytes (its specification, section 2.3).
const LONGEST_PRINCIPAL: usize = 2048;

/// Which end of a call reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The caller's proxy.
    Source,
    /// The callee's proxy.
    Destination,
}

impl Side {
    fn of(conn: &Connection) -> Self {
        match conn.listener.traffic_direction {
            TrafficDirection::Inbound => Self::Destination,
            _ => Self::Source,
        }
    }
}

/// A service as calls name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Service {
    pub(super) host: Name,
    pub(super) name: Name,
    pub(super) namespace: Name,
}

/// Values of one kind, numbered from 1; 0 is "not looked at", 1 is unknown.
#[derive(Debug)]
struct Table<T> {
    ids: HashMap<T, u32, RandomState>,
    values: Vec<T>,
}

const UNSEEN: u32 = 0;
const NONE: u32 = 1;

impl<T: Clone + Default + Eq + std::hash::Hash> Table<T> {
    fn new() -> Self {
        let mut table = Self {
            ids: HashMap::default(),
            values: vec![T::default()],
        };
        table.id(T::default());
        table
    }

    fn id(&mut self, value: T) -> u32 {
        if let Some(id) = self.ids.get(&value) {
            return *id;
        }
        if self.values.len() > MOST {
            return NONE;
        }
        let id = self.values.len() as u32;
        self.values.push(value.clone());
        self.ids.insert(value, id);
        id
    }
}

/// What tells label sets apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) side: Side,
    pub(super) protocol: Kind,
    pub(super) code: u16,
    pub(super) secure: Secure,
    pub(super) flags: ResponseFlags,
    pub(super) grpc: Option<u32>,
    peer: u32,
    principal: u32,
    service: u32,
    /// Which filter's overrides apply: its address, 0 = none.
    filter: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Http,
    Grpc,
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Secure {
    MutualTls,
    None,
    Unknown,
}

#[derive(Debug)]
struct HttpSlot {
    requests: Option<Counter>,
    duration: Option<Histogram>,
    request_bytes: Option<Histogram>,
    response_bytes: Option<Histogram>,
    _filter: Arc<IstioStats>,
}

impl HttpSlot {
    /// Adds a finished request.
    fn count(&self, record: &StreamRecord) {
        if let Some(requests) = &self.requests {
            requests.inc();
        }
        for (histogram, value) in [
            (&self.duration, record.duration_ms()),
            (&self.request_bytes, record.received),
            (&self.response_bytes, record.sent),
        ] {
            if let Some(histogram) = histogram {
                histogram.record(value);
            }
        }
    }
}

#[derive(Debug)]
struct TcpSlot {
    sent: Option<Counter>,
    received: Option<Counter>,
    opened: Option<Counter>,
    closed: Option<Counter>,
    _filter: Arc<IstioStats>,
}

/// The mesh as one worker sees it.
#[derive(Debug)]
pub struct Mesh {
    /// This proxy's own workload.
    pub own: Arc<Own>,
    registry: Registry,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    workloads: Table<Workload>,
    services: Table<Service>,
    principals: Table<Name>,
    /// Peers by their header, so that it is taken apart once.
    headers: HashMap<Vec<u8>, u32, RandomState>,
    header_bytes: usize,
    texts: Texts,
    /// Services by the host that was asked for, for each of [`STAND_INS`] and
    /// for all other clusters.
    hosts: [HashMap<Vec<u8>, u32, RandomState>; 4],
    http: HashMap<Key, HttpSlot, RandomState>,
    tcp: HashMap<Key, TcpSlot, RandomState>,
}

impl Mesh {
    /// A mesh of which only the own workload is known.
    pub fn new(own: Arc<Own>, registry: Registry) -> Self {
        Self {
            own,
            registry,
            inner: RefCell::new(Inner {
                workloads: Table::new(),
                services: Table::new(),
                principals: Table::new(),
                headers: HashMap::default(),
                header_bytes: 0,
                texts: Texts::default(),
                hosts: Default::default(),
                http: HashMap::default(),
                tcp: HashMap::default(),
            }),
        }
    }

    /// The number of the peer that sent this `x-envoy-peer-metadata`.
    pub fn peer_of_header(&self, value: &[u8]) -> u32 {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(id) = inner.headers.get(value) {
            return *id;
        }
        let id = match Workload::of_header(value) {
            Some(workload) => inner.workloads.id(workload),
            None => NONE,
        };
        let bytes = inner.header_bytes + value.len();
        if id != NONE && bytes <= HEADERS {
            inner.header_bytes = bytes;
            inner.headers.insert(value.to_vec(), id);
        }
        id
    }

    /// A finished request.
    pub fn request(&self, record: &StreamRecord, filter: &Arc<IstioStats>) {
        let inner = &mut *self.inner.borrow_mut();
        let side = Side::of(&record.conn);
        let grpc = is_grpc(&record.request);
        let fallback = (!filter.disable_host_header_fallback).then(|| record.request.authority());
        let key = Key {
            side,
            protocol: if grpc { Kind::Grpc } else { Kind::Http },
            code: record.code,
            secure: secure(side, &record.conn),
            flags: record.flags,
            grpc: grpc.then(|| record.grpc_status()).flatten(),
            peer: inner.peer(side, record.peer, record.host.as_deref()),
            principal: inner.principal(side, &record.conn),
            service: inner.service(
                record.routed_cluster().map(|c| &**c),
                record.cluster_name.as_ref(),
                fallback,
            ),
            filter: overrides(filter),
        };
        let key = key.within(&inner.http);
        let Some(slot) = inner.http.get(&key) else {
            let slot = self.http_slot(inner, &key, filter);
            slot.count(record);
            inner.http.insert(key, slot);
            return;
        };
        slot.count(record);
    }

    /// A TCP connection reached its upstream.
    pub fn opened(&self, record: &TcpRecord, filter: &Arc<IstioStats>) {
        self.with_tcp(record, filter, |slot| add(&slot.opened, 1));
    }

    /// A TCP connection ended; `opened` tells whether [`Mesh::opened`] was
    /// called for it.
    pub fn closed(&self, record: &TcpRecord, filter: &Arc<IstioStats>, opened: bool) {
        self.with_tcp(record, filter, |slot| {
            add(&slot.opened, u64::from(!opened));
            add(&slot.closed, 1);
            add(&slot.sent, record.sent);
            add(&slot.received, record.received);
        });
    }

    fn with_tcp(&self, record: &TcpRecord, filter: &Arc<IstioStats>, count: impl FnOnce(&TcpSlot)) {
        let inner = &mut *self.inner.borrow_mut();
        let side = Side::of(&record.conn);
        let key = Key {
            side,
            protocol: Kind::Tcp,
            code: 0,
            secure: secure(side, &record.conn),
            flags: record.flags,
            grpc: None,
            peer: inner.peer(side, UNSEEN, record.host.as_deref()),
            principal: inner.principal(side, &record.conn),
            service: inner.service(
                record.cluster.as_deref(),
                record.cluster_name.as_ref(),
                None,
            ),
            filter: overrides(filter),
        };
        let key = key.within(&inner.tcp);
        if !inner.tcp.contains_key(&key) {
            let slot = self.tcp_slot(inner, &key, filter);
            inner.tcp.insert(key, slot);
        }
        if let Some(slot) = inner.tcp.get(&key) {
            count(slot);
        }
    }

    fn http_slot(&self, inner: &mut Inner, key: &Key, filter: &Arc<IstioStats>) -> HttpSlot {
        let labels = self.labels(inner, key);
        let name = |metric: &str| labels::stat_name(metric, &labels, &filter.metrics);
        let histogram = |metric: &str| name(metric).map(|n| self.registry.histogram(&n));
        HttpSlot {
            requests: name("requests_total").map(|n| self.registry.counter(&n)),
            duration: histogram("request_duration_milliseconds"),
            request_bytes: histogram("request_bytes"),
            response_bytes: histogram("response_bytes"),
            _filter: filter.clone(),
        }
    }

    fn tcp_slot(&self, inner: &mut Inner, key: &Key, filter: &Arc<IstioStats>) -> TcpSlot {
        let labels = self.labels(inner, key);
        let counter = |metric: &str| {
            let name = labels::stat_name(metric, &labels, &filter.metrics)?;
            Some(self.registry.counter(&name))
        };
        TcpSlot {
            sent: counter("tcp_sent_bytes_total"),
            received: counter("tcp_received_bytes_total"),
            opened: counter("tcp_connections_opened_total"),
            closed: counter("tcp_connections_closed_total"),
            _filter: filter.clone(),
        }
    }

    fn labels(&self, inner: &mut Inner, key: &Key) -> Labels {
        let call = Call {
            key,
            own: &self.own.workload,
            peer: &inner.workloads.values[key.peer as usize],
            principal: &inner.principals.values[key.principal as usize],
            service: &inner.services.values[key.service as usize],
        };
        call.labels(&mut inner.texts)
    }
}

impl Key {
    /// The key itself where there is room for it, else the one of all that are not told apart.
    fn within<T>(self, sets: &HashMap<Self, T, RandomState>) -> Self {
        if sets.len() < SETS || sets.contains_key(&self) {
            return self;
        }
        Self {
            peer: NONE,
            principal: NONE,
            service: NONE,
            grpc: self.grpc.filter(|status| *status <= LAST_STATUS),
            ..self
        }
    }
}

impl Inner {
    /// The number of the other end's workload.
    fn peer(&mut self, side: Side, told: u32, host: Option<&Host>) -> u32 {
        if told > NONE {
            return told;
        }
        match (side, host) {
            (Side::Source, Some(host)) => {
                if host.peer.get() == UNSEEN {
                    let workload = Workload::of_endpoint(&host.endpoint.metadata);
                    let id = workload.map_or(NONE, |w| self.workloads.id(w));
                    host.peer.set(id);
                }
                host.peer.get()
            }
            _ => NONE,
        }
    }

    fn principal(&mut self, side: Side, conn: &Connection) -> u32 {
        let uri = conn.peer.as_ref().and_then(|p| p.uris.first());
        match uri {
            Some(uri) if side == Side::Destination => {
                let name = uri.strip_prefix("spiffe://").unwrap_or(uri);
                if name.len() > LONGEST_PRINCIPAL {
                    return NONE;
                }
                match self.principals.ids.get(name) {
                    Some(id) => *id,
                    None => self.principals.id(name.into()),
                }
            }
            _ => NONE,
        }
    }

    /// The service a cluster stands for: its metadata's first, else the host
    /// asked for, else the cluster's name (Istio's passthrough and black hole).
    fn service(
        &mut self,
        cluster: Option<&ClusterState>,
        name: Option<&Name>,
        host: Option<&[u8]>,
    ) -> u32 {
        if let Some(cluster) = cluster {
            if cluster.service.get() == UNSEEN {
                let service = service_of(&cluster.config.metadata);
                let id = service.map_or(NONE, |s| self.services.id(s));
                cluster.service.set(id);
            }
            if cluster.service.get() > NONE {
                return cluster.service.get();
            }
        }
        let host = host.unwrap_or_default();
        let stand_in = name.and_then(|n| STAND_INS.iter().position(|s| **s == **n));
        let by_host = &mut self.hosts[stand_in.unwrap_or(STAND_INS.len())];
        if let Some(id) = by_host.get(host) {
            return *id;
        }
        let text = std::str::from_utf8(host).ok();
        let text = text.filter(|h| h.len() <= LONGEST_HOST);
        let text = text.unwrap_or_default();
        let id = self.services.id(Service {
            host: text.into(),
            name: stand_in.map_or(text, |i| STAND_INS[i]).into(),
            namespace: Name::default(),
        });
        if by_host.len() < MOST && host.len() <= LONGEST_HOST {
            by_host.insert(host.to_vec(), id);
        }
        id
    }
}

/// Clusters that stand for no service of their own.
const STAND_INS: [&str; 3] = [
    "PassthroughCluster",
    "InboundPassthroughCluster",
    "BlackHoleCluster",
];

fn service_of(metadata: &Metadata) -> Option<Service> {
    let Value::List(services) = metadata.get("istio")?.path(["services"])? else {
        return None;
    };
    let first = services.first()?;
    let text = |key: &str| {
        let value = first.path([key]).and_then(Value::as_str);
        value.map_or_else(Name::default, Name::from)
    };
    Some(Service {
        host: text("host"),
        name: text("name"),
        namespace: text("namespace"),
    })
    .filter(|s| !s.host.is_empty())
}

fn secure(side: Side, conn: &Connection) -> Secure {
    match side {
        Side::Source => Secure::Unknown,
        Side::Destination if conn.peer.is_some() => Secure::MutualTls,
        Side::Destination => Secure::None,
    }
}

fn add(counter: &Option<Counter>, count: u64) {
    if let Some(counter) = counter {
        counter.add(count);
    }
}

/// Filters without overrides share their slots; one with overrides has its own.
fn overrides(filter: &Arc<IstioStats>) -> usize {
    match filter.metrics.is_empty() {
        true => 0,
        false => Arc::as_ptr(filter).addr(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::peer;
    use lateen_proxy_core::config::Fields;

    fn mesh() -> Mesh {
        Mesh::new(Arc::default(), Registry::new())
    }

    #[test]
    fn what_peers_say_of_themselves_is_bounded() {
        let mesh = mesh();
        let long = Value::String("x".repeat(5000).as_str().into());
        for number in 0..MOST + 10 {
            let name = Value::String(number.to_string().as_str().into());
            let told = Fields::from([
                ("WORKLOAD_NAME".into(), name),
                ("NAMESPACE".into(), long.clone()),
            ]);
            let header = peer::encode(&told, &Workload::default()).into_bytes();
            let peer = mesh.peer_of_header(&header);
            assert_eq!(peer == NONE, number >= MOST - 1, "{number}");
            assert_eq!(mesh.peer_of_header(&header), peer);
            assert_eq!(mesh.peer_of_header(&[b'#'; 5000]), NONE);
        }
        let inner = mesh.inner.borrow();
        let kept: usize = inner.headers.keys().map(Vec::len).sum();
        assert!(kept == inner.header_bytes && kept <= HEADERS, "{kept}");
        let longest = inner.workloads.values.iter().map(|w| w.namespace.len());
        assert_eq!(longest.max(), Some(0));
    }

    #[test]
    fn hosts_that_are_none_are_one() {
        let mut inner = mesh().inner.into_inner();
        let long = "h".repeat(LONGEST_HOST + 1);
        let one = inner.service(None, None, Some(long.as_bytes()));
        assert_eq!(inner.service(None, None, Some(b"\xff")), one);
        assert!(
            inner
                .hosts
                .iter()
                .flatten()
                .all(|(h, _)| h.len() <= LONGEST_HOST)
        );
        assert_ne!(inner.service(None, None, Some(b"h")), one);
    }

    #[test]
    fn sets_beyond_the_last_are_told_without_their_ends() {
        let key = |peer: u32| Key {
            side: Side::Destination,
            protocol: Kind::Http,
            code: 200,
            secure: Secure::None,
            flags: ResponseFlags::default(),
            grpc: None,
            peer,
            principal: 7,
            service: 8,
            filter: 0,
        };
        let mut sets: HashMap<Key, (), RandomState> = HashMap::default();
        for peer in 0..SETS as u32 {
            let within = key(peer).within(&sets);
            assert_eq!(within, key(peer));
            sets.insert(within, ());
        }
        assert_eq!(key(3).within(&sets), key(3), "known");
        let one = key(SETS as u32).within(&sets);
        assert_eq!(one, key(u32::MAX).within(&sets));
        assert_eq!((one.peer, one.principal, one.service), (NONE, NONE, NONE));
    }
}
