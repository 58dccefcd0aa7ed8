//! The ADS client: one state machine for both forms of the protocol, a socket loop that carries it,
//! gRPC framing over HTTP/2, and connections to the management server.
mod client;
mod connect;
mod grpc;
mod secrets;
mod state;
mod tally;
mod traffic;

pub use client::{AdsClient, Handle, Options, Status, start};
pub use connect::{ClusterConnector, Connect, Connecting, Stream};
pub use grpc::{Deframer, FrameError};
pub(crate) use state::sotw_resources as resources_of;
pub use state::{Outcomes, Request, Response, State};
pub use tally::{Subscribed, Tally};
