//! Bytes in and out of one worker: sockets with or without TLS, pooled buffers,
//! deadlines. Nothing here is `Send`; one thread owns it all.

pub mod buffer;
pub mod clock;
pub mod socket;
pub mod timer;

pub use buffer::Buf;
pub use socket::{Io, Meters};
pub use timer::Timer;
