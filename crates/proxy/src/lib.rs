//! The proxy's hands: accept, original destination, TLS, HTTP/1 and 2, filters,
//! pools, drain, sinks. What to do is decided in `lateen-proxy-core`; here it
//! is done, one worker thread at a time.

pub mod admin;
pub mod agent;
pub mod conn;
pub mod engine;
#[doc(hidden)]
pub mod fuzz;
pub mod http;
pub mod http1;
pub mod http2;
pub mod io;
pub mod listener;
pub mod logger;
pub mod logs;
pub mod mesh;
mod os;
pub mod overload;
mod parting;
pub mod run;
pub mod stats;
pub mod tcp;
pub mod tls;
pub mod trace;
pub mod upstream;
pub mod worker;
