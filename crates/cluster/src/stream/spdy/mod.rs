//! SPDY/3.1 as kubectl speaks it over an upgraded connection: server side only.
//!
//! `frame` and `block` are the pure codec, `connection` carries streams over a byte stream.

pub mod block;
pub mod connection;
pub mod frame;

pub use connection::{Connection, IncomingStream, StreamReader, StreamWriter};
