//! The header names that the proxy itself looks for. The numbers are `proxy-core`'s, whose rules ask
//! by them too.

pub use lateen_proxy_core::known::{ALL, Known};
