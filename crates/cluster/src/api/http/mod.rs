//! HTTP: from a request to the operations and back: paths, parameters, bodies, answers.

pub(crate) mod body;
mod discovery;
pub(crate) mod duplicates;
mod openapi;
pub(crate) mod params;
pub(crate) mod path;
pub(crate) mod protobuf;
mod resources;
mod reviews;
mod root;
mod service;
mod swagger;
mod watch;

pub(crate) use service::{Peer, Shared, serve};
pub(crate) use watch::Next;
