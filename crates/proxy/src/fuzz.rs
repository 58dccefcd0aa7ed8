//! Doors to the private parsers, for the fuzz targets. No part of the crate's interface: it
//! changes with what is behind it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use lateen_proxy_core::config::{Fields, Listener};

use crate::conn::{Connection, Drain};
use crate::io::Io;
use crate::worker::Worker;

pub use crate::admin::query::Query;
pub use crate::listener::hello::{Found, inspect as tls_hello};
pub use crate::listener::inspect::{ProxyHeader, http_protocol, proxy_header};

/// Reads a certificate's names: URI names, DNS names, subject.
pub fn peer_names(der: &[u8]) -> (Vec<String>, Vec<String>, String) {
    let names = crate::tls::certificate::Names::of(der);
    (names.uris, names.dns, names.subject)
}

/// Reads an `x-envoy-peer-metadata` header.
pub fn peer_metadata(value: &[u8]) -> Option<Fields> {
    crate::mesh::peer::decode(value)
}

/// Writes what [`peer_metadata`] reads, without base64.
pub fn peer_metadata_wire(metadata: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    crate::mesh::peer::write_struct(metadata, &mut out);
    out
}

/// A connection of a client that has come through the listener's first chain.
pub fn connection(worker: &Rc<Worker>, listener: &Arc<Listener>, io: Io) -> Rc<Connection> {
    Rc::new(Connection {
        id: worker.connection_id(),
        worker: worker.clone(),
        listener: listener.clone(),
        chain: listener.filter_chains[0].clone(),
        io: Rc::new(io),
        local: SocketAddr::from(([10, 0, 0, 1], 80)),
        remote: SocketAddr::from(([10, 0, 0, 2], 5000)),
        source: None,
        server_name: String::new(),
        alpn: None,
        peer: None,
        shown: None,
        failure: String::new(),
        details: Cell::new(""),
        flags: Cell::new(lateen_proxy_core::flags::ResponseFlags::NONE),
        accepted_ns: 1,
        requests: Cell::new(0),
        metered: Cell::new((0, 0)),
        broken: Cell::new(false),
        drain: Rc::new(Drain::default()),
        termination: RefCell::new(None),
        parting: Cell::default(),
        idle: RefCell::new(None),
    })
}
