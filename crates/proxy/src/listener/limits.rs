//! Limits on open connections: of the whole proxy (Envoy's resource monitor
//! `global_downstream_max_connections`) and of single listeners (runtime key
//! `envoy.resource_limits.listener.<name>.connection_limit`). They are counted over all workers,
//! from the accept on, and only where they are configured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lateen_proxy_core::config::{Listener, Name};

/// A count with an upper end.
#[derive(Debug)]
struct Limit {
    most: u32,
    open: AtomicU32,
}

impl Limit {
    fn new(most: u32) -> Arc<Self> {
        let open = AtomicU32::new(0);
        Arc::new(Self { most, open })
    }

    fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |open| (open < self.most).then_some(open + 1);
        let order = Ordering::Relaxed;
        let taken = self.open.fetch_update(order, order, more);
        taken.ok().map(|_| Place(self.clone()))
    }
}

/// A place below a limit, given back on drop.
#[derive(Debug)]
struct Place(Arc<Limit>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The places of one connection.
#[derive(Debug, Default)]
pub struct Admitted(
    #[expect(dead_code, reason = "what counts is when it is dropped")]
    Option<Box<[Option<Place>; 2]>>,
);

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Of the whole proxy.
    Global,
    /// Of the listener.
    Listener,
}

/// All limits of a process.
#[derive(Debug, Default)]
pub struct ConnectionLimits {
    global: Option<Arc<Limit>>,
    listeners: BTreeMap<Name, Arc<Limit>>,
}

impl ConnectionLimits {
    /// At most `global` connections (none = as many as come), and at most so many of listeners.
    pub fn new(global: Option<u32>, listeners: impl IntoIterator<Item = (Name, u32)>) -> Self {
        let of_listener = |(name, most)| (name, Limit::new(most));
        Self {
            global: global.map(Limit::new),
            listeners: listeners.into_iter().map(of_listener).collect(),
        }
    }

    /// Counts a connection of a listener.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(&self, listener: &Listener) -> Result<Admitted, Full> {
        self.take(&listener.name, listener.ignore_global_conn_limit)
    }

    fn take(&self, listener: &str, beyond_global: bool) -> Result<Admitted, Full> {
        if self.global.is_none() && self.listeners.is_empty() {
            return Ok(Admitted::default());
        }
        let own = match self.listeners.get(listener) {
            Some(limit) => Some(limit.take().ok_or(Full::Listener)?),
            None => None,
        };
        let global = match &self.global {
            Some(limit) if !beyond_global => Some(limit.take().ok_or(Full::Global)?),
            _ => None,
        };
        Ok(Admitted(Some(Box::new([own, global]))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn places_come_back() {
        let limits = ConnectionLimits::new(Some(2), [("a".into(), 1)]);
        let first = limits.take("a", false).unwrap();
        assert_eq!(limits.take("a", false).unwrap_err(), Full::Listener);
        let second = limits.take("b", false).unwrap();
        assert_eq!(limits.take("b", false).unwrap_err(), Full::Global);
        assert!(limits.take("c", true).is_ok());
        drop(second);
        let again = limits.take("b", false).unwrap();
        drop((first, again));
        assert!(limits.take("a", false).is_ok());
        assert!(ConnectionLimits::default().take("a", false).is_ok());
        let none_at_all = ConnectionLimits::new(Some(0), []);
        assert_eq!(none_at_all.take("a", false).unwrap_err(), Full::Global);
    }
}
