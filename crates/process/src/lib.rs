//! What every long-running process of ours needs: one way to stop, one way to log.
//!
//! Reads no environment: the program's `main` decides and passes the values in.

pub mod logs;
pub mod stop;

pub use stop::{Stop, Stopper};
