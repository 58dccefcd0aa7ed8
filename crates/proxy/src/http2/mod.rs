//! The HTTP/2 codec (RFC 9113, RFC 7541). It knows no IO and no clock: bytes in,
//! streams and their parts out; heads, bodies and control frames to one buffer
//! of bytes to send. Limits against floods hold from the first frame.

mod collect;
mod encode;
mod flow;
pub mod frame;
mod guard;
pub mod hpack;
mod outbox;
mod reason;
mod receive;
mod send;
mod session;
mod settings;
mod stream;

pub use collect::{Kind, Refusal};
pub use encode::{write_request, write_response, write_trailers};
pub use reason::{ConnectionError, Gone, Reason};
pub use session::{Accepted, Role, Session};
pub use settings::Settings;

#[cfg(test)]
mod session_tests;
