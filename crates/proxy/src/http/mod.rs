//! HTTP between the codecs: heads, the connection manager, filters, the router.

pub mod convert;
pub mod head;
pub mod known;
pub mod reader;
pub mod writer;
