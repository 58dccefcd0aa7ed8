//! The one vocabulary of sources.

use lateen_resources::{Diagnostic, Kind, Object, ObjectKey};
use std::sync::Arc;

/// Something happened to the objects of a source.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An object came or changed.
    Upsert(Arc<Object>),
    /// An object went.
    Delete(ObjectKey),
    /// All objects of a kind, as after listing anew: whatever else was there is gone.
    Replace(Kind, Vec<Arc<Object>>),
    /// Everything that cannot be read at the moment; replaces what was said before.
    Unreadable(Vec<Diagnostic>),
    /// Everything there is has been delivered once.
    Synced,
}

/// Where a source sends its events. A full channel slows the source down; a
/// closed one ends it.
pub type Sink = tokio::sync::mpsc::Sender<Event>;
