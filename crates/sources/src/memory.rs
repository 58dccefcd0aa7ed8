//! A source without outside: objects are put in by the program itself, as
//! tests and tools do.

use crate::{Event, Sink};
use lateen_resources::{Object, ObjectKey};
use std::sync::Arc;
use tokio::sync::mpsc::error::SendError;

/// Sends what it is given.
#[derive(Debug, Clone)]
pub struct Memory {
    sink: Sink,
}

impl Memory {
    /// A source for this sink.
    pub fn new(sink: Sink) -> Self {
        Self { sink }
    }

    /// Adds or replaces an object. Fails when nobody listens any more.
    pub async fn put(&self, object: Object) -> Result<(), SendError<Event>> {
        self.sink.send(Event::Upsert(Arc::new(object))).await
    }

    /// Removes an object. Fails when nobody listens any more.
    pub async fn remove(&self, key: ObjectKey) -> Result<(), SendError<Event>> {
        self.sink.send(Event::Delete(key)).await
    }

    /// Says that everything has been put. Fails when nobody listens any more.
    pub async fn synced(&self) -> Result<(), SendError<Event>> {
        self.sink.send(Event::Synced).await
    }
}
