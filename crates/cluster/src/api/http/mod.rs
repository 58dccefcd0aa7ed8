//! HTTP: from a request to the operations and back: paths, parameters, bodies, answers.

mod body;
mod discovery;
mod duplicates;
mod openapi;
mod params;
mod path;
pub(crate) mod protobuf;
mod resources;
mod reviews;
mod root;
mod service;
mod watch;

pub(crate) use service::{Peer, Shared, serve};
pub(crate) use watch::Next;
