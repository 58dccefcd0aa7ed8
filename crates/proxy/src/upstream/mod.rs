//! Everything towards endpoints: clusters and their hosts as a worker sees
//! them, balancing, connections and their pools, name resolution, breakers.

pub mod balance;
pub mod breaker;
pub mod check;
pub mod cluster;
pub mod connect;
pub mod dns;
pub mod health;
pub mod host;
pub mod http2;
pub mod idle;
mod machine;
pub mod passive;
mod probe;
mod proxy_header;
mod resolve;
pub mod table;

pub use balance::Choice;
pub use breaker::{ActiveRequest, InFlight, Limited, Pending, Permit};
pub use cluster::ClusterState;
pub use connect::{ConnectError, ConnectOptions, HttpConnection, OriginalSource};
pub use host::Host;
pub use proxy_header::Origin;
pub use table::ClusterTable;
