//! The cluster's DNS: a pure zone, a forwarder for everything else, and the sockets.

pub mod forward;
pub mod server;
pub mod zone;
