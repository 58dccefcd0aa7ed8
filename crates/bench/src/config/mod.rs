//! What each contestant is told to do, from one description.

pub mod envoy;
mod haproxy;
mod nginx;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::pki::Pki;

pub use haproxy::text as haproxy;
pub use nginx::text as nginx;

/// What a proxy is to do.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its admin port, where it has one.
    pub admin: u16,
    /// Where requests go.
    pub backend: SocketAddr,
    /// Clients come with TLS and a certificate.
    pub tls_down: bool,
    /// The backend is met so.
    pub tls_up: bool,
    /// Clients speak HTTP/2.
    pub http2: bool,
    /// Bytes and not requests.
    pub tcp: bool,
    /// A sidecar's filters, before the router.
    pub sidecar: bool,
    /// Istio's own filters too, for who has them.
    pub istio: bool,
    /// Where the access log goes.
    pub log: Option<PathBuf>,
    /// Services, each a cluster and a virtual host; the last one is asked.
    pub services: usize,
    /// Routes of each virtual host; the last one is asked.
    pub routes: usize,
    /// Endpoints of the cluster that is asked.
    pub endpoints: usize,
    /// The port of the management server that the services come from.
    pub ads: Option<u16>,
    /// What belongs to the proxy alone: configuration, output, log.
    pub folder: PathBuf,
}

/// The name of a service, which is also the `Host` that reaches it.
pub fn service(number: usize) -> String {
    format!("service-{number:05}.default.svc.cluster.local")
}

/// The names that a service is asked by.
pub fn names(number: usize) -> [String; 4] {
    let name = service(number);
    let short = name.split('.').next().unwrap_or_default().to_owned();
    [format!("{name}:80"), format!("{short}:80"), name, short]
}

/// The prefix of a route of many.
fn prefix(number: usize) -> String {
    format!("/route-{number:05}")
}

/// The path that only the last of so many routes matches.
pub fn path(routes: usize) -> String {
    match routes {
        0 | 1 => "/some/path?with=query".to_owned(),
        _ => format!("{}/some/path?with=query", prefix(routes - 1)),
    }
}

/// Files of certificates as text.
fn file(path: &Path) -> String {
    path.display().to_string()
}

/// What the configurations of all are written from.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The description.
    pub spec: &'a Spec,
    /// The certificates.
    pub pki: &'a Pki,
}
