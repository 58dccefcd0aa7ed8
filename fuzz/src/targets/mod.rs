//! The targets, a file per floor of the program.

pub mod ads;
pub mod certificate;
pub mod cluster;
pub mod connection;
pub mod control;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod inspect;
pub mod jwt;
pub mod log;
pub mod mesh;
pub mod name;
pub mod path;
pub mod pod;
pub mod server;
pub mod session;
pub mod stream;
pub mod wire;
pub mod xds;

use crate::Target;

/// All targets.
pub const TARGETS: &[&Target] = &[
    &http1::REQUEST,
    &http1::RESPONSE,
    &http1::BODY,
    &http2::HEAD,
    &http2::FRAMES,
    &connection::HTTP1,
    &connection::HTTP2,
    &connection::UPSTREAM,
    &inspect::TLS_HELLO,
    &inspect::HTTP,
    &inspect::PROXY_PROTOCOL,
    &path::NORMALIZE,
    &path::AUTHORITY,
    &path::TEMPLATE,
    &headers::REQUEST,
    &headers::REGEX,
    &headers::ADMIN,
    &name::ANSWER,
    &jwt::TOKEN,
    &jwt::KEYS,
    &jwt::VERDICT,
    &log::FORMAT,
    &xds::LISTENER,
    &xds::CLUSTER,
    &xds::ROUTES,
    &xds::ENDPOINTS,
    &xds::SECRET,
    &wire::JSON,
    &wire::BOOTSTRAP,
    &wire::SIDECAR,
    &wire::GRPC,
    &wire::PEER,
    &wire::CERTIFICATE,
    &ads::CLIENT,
    &ads::SERVER,
    &control::NODE,
    &control::REQUESTS,
    &control::REVIEW,
    &certificate::REQUEST,
    &mesh::YAML,
    &mesh::MESH,
    &mesh::MESH_CONFIG,
    &mesh::DURATION,
    &pod::IPTABLES,
    &pod::INJECT,
    &cluster::URL,
    &cluster::SELECTOR,
    &cluster::BODY,
    &cluster::PATCH,
    &cluster::OBJECT,
    &cluster::CUSTOM,
    &server::TOKENS,
    &server::WEBHOOK,
    &session::EXEC_SOCKET,
    &session::EXEC_SPDY,
    &session::FORWARD_SOCKET,
    &session::FORWARD_SPDY,
    &stream::SPDY,
    &stream::CHANNEL,
    &stream::DNS,
    &stream::WORDS_OF_PODS,
];
