//! The proxy's brain: plain values and functions, no IO.
