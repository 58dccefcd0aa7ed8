//! The differential suite: cases as data (`cases/*.yaml`, described in
//! `cases/README.md`), replayed against the real Envoy and this proxy.

pub mod bootstrap;
pub mod case;
pub mod client;
pub mod docs;
pub mod envoy;
pub mod expand;
pub mod framed;
pub mod message;
pub mod normal;
pub mod pressure;
pub mod random;
pub mod report;
pub mod run;
pub mod script;
pub mod tokens;
pub mod upstream;
