//! The differential suite of TLS: cases as data (`cases/*.yaml`, described in
//! `cases/README.md`).

pub mod bootstrap;
pub mod case;
pub mod client;
pub mod judge;
pub mod pki;
pub mod run;
pub mod server;
