//! HTTP between the codecs: heads, the connection manager, filters, the router.

pub mod access;
mod attempt;
mod filters;
mod forward;
pub mod head;
pub mod heads;
pub mod known;
mod local;
mod mutate;
mod peers;
pub mod reader;
pub mod record;
pub mod responder;
mod retry;
mod rewrite;
mod sanitize;
pub mod server1;
pub mod server2;
mod shadow;
pub mod source;
pub mod stream;
pub(crate) mod tls_fields;
mod tunnel;
pub mod upstream;
pub mod wire;
pub mod writer;
