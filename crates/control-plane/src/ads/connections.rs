//! Who is connected: one entry per ADS stream, read by the debug pages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lateen_xds::ResourceType;

use super::node::NodeInfo;
use super::state::Progress;

/// One proxy's stream.
#[derive(Debug)]
pub struct Connection {
    /// `<node id>-<number>`, as Istio names connections.
    pub id: String,
    /// `sotw` or `delta`.
    pub dialect: &'static str,
    /// Peer address as text.
    pub peer: String,
    /// When the stream began.
    pub since: jiff::Timestamp,
    /// Who it is.
    pub node: NodeInfo,
    progress: Mutex<Vec<(ResourceType, Progress)>>,
}

impl Connection {
    /// Progress per subscribed type.
    pub fn progress(&self) -> Vec<(ResourceType, Progress)> {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn update(&self, progress: Vec<(ResourceType, Progress)>) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

/// All streams.
#[derive(Debug, Default)]
pub struct Connections {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

/// Keeps a stream listed; dropping it takes the stream off the list.
#[derive(Debug)]
pub(crate) struct Listed {
    list: Arc<Connections>,
    number: u64,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.list.map().remove(&self.number);
    }
}

impl Connections {
    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All open streams, oldest first.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.map().values().cloned().collect()
    }

    /// The newest stream of a proxy, by `<pod>.<ns>`, by node id or by connection id.
    pub fn find(&self, name: &str) -> Option<Arc<Connection>> {
        self.map()
            .values()
            .rev()
            .find(|c| c.node.display_name() == name || c.node.id == name || c.id == name)
            .cloned()
    }

    pub(crate) fn add(
        self: &Arc<Self>,
        node: NodeInfo,
        dialect: &'static str,
        peer: String,
    ) -> Listed {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Arc::new(Connection {
            id: format!("{}-{number}", node.id),
            dialect,
            peer,
            since: jiff::Timestamp::now(),
            node,
            progress: Mutex::default(),
        });
        self.map().insert(number, Arc::clone(&connection));
        Listed {
            list: Arc::clone(self),
            number,
            connection,
        }
    }
}
