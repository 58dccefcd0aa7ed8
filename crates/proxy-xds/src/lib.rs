//! The proxy's protobuf door: bootstrap, ADS client, decoding into `proxy-core` values, ACK and
//! NACK with the field path, raw resources for the config dump.
pub mod ads;
pub mod authz;
pub mod bootstrap;
pub mod certified_key;
pub mod decode;
mod dump;
pub mod error;
pub mod files;
pub mod kind;
pub mod locate;
mod references;
pub mod runtime;
pub mod sidecar;
mod text;
mod validate;
mod watch;
pub mod world;

pub use error::DecodeError;
pub use kind::Kind;
pub use validate::validate;
pub use world::World;
