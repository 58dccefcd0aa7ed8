//! The proxy's brain: what to match, where to send, when to retry, what to log. Plain values and
//! functions; no sockets, no clock, no protobuf. Time and randomness are arguments.
pub mod access_log;
pub mod config;
pub mod filter_chain;
pub mod flags;
pub mod local_reply;
pub mod matcher;
pub mod path;
pub mod router;
pub mod uri_template;
