//! What every long-running process of ours needs: one way to stop, one way to log, and no more
//! memory than it works with.
//!
//! Reads no environment: the program's `main` decides and passes the values in.

pub mod footprint;
pub mod logs;
pub mod stop;

pub use stop::{Stop, Stopper};
