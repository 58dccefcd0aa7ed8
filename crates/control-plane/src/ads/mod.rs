//! The ADS server: `state` decides, `sotw` and `delta` are the two dialects, `stream`
//! carries them over sockets, `node` reads who a proxy says it is, `connections` lists
//! who is there, `server` is the gRPC service.

mod connections;
mod delta;
pub(crate) mod fuzz;
mod node;
mod server;
mod sotw;
mod state;
mod stream;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use connections::Listed;
pub use connections::{Connection, Connections};
pub use node::{NodeError, NodeInfo, NodeKind};
pub use server::{Ads, Caller, Source, View};
pub use state::{Names, Progress};

/// `control_plane.identifier` of every response.
pub(crate) const IDENTIFIER: &str = concat!("lateen-", env!("CARGO_PKG_VERSION"));
