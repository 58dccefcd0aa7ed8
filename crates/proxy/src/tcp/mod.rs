//! Raw TCP between two connections: moving bytes and proxying to a cluster.

mod copy;
mod proxy;
mod record;
mod splice;
mod tunnel;

pub use copy::{Ended, Limits, Moved, Peer, Side, copy};
pub use proxy::serve;
pub use record::TcpRecord;
