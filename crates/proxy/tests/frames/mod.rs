//! A small HTTP/2 client for tests that says exactly what it is told, frame by
//! frame, however wrong, and reads everything that comes back. It shares no
//! code with the proxy. The language of its scripts is in `script.rs`.
#![allow(dead_code, reason = "every test file uses a part")]

pub mod client;
pub mod hpack;
pub mod script;
pub mod table;
