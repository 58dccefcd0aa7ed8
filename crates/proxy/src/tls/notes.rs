//! What a handshake leaves behind for its connection: rustls' verifier and
//! certificate chooser belong to a configuration that many connections share,
//! and their errors carry no certificate. They run inside the poll of the one
//! handshake that the worker's thread is at, so a thread-local slot, emptied
//! after every poll, tells which connection it was.

use std::cell::RefCell;
use std::sync::Arc;

use super::certificate::Names;

/// Why a peer's certificate was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The chain.
    Chain,
    /// No name fits.
    Names,
    /// Not among the pinned ones.
    Pins,
    /// The key is not for signatures.
    KeyUsage,
}

/// A refused certificate.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The leaf, DER.
    pub leaf: Vec<u8>,
    /// What was wrong with it.
    pub fault: Fault,
    /// In Envoy's words, with `_` for spaces.
    pub words: String,
}

/// What was noted in one poll.
#[derive(Debug, Default)]
pub struct Notes {
    /// The peer's certificate was refused.
    pub refusal: Option<Refusal>,
    /// The certificate shown to the peer.
    pub shown: Option<Arc<Names>>,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

/// Notes a refusal.
pub(super) fn refused(refusal: Refusal) {
    NOTES.with_borrow_mut(|notes| notes.refusal = Some(refusal));
}

/// Notes what is shown.
pub(super) fn shown(names: &Arc<Names>) {
    NOTES.with_borrow_mut(|notes| notes.shown = Some(names.clone()));
}

impl Notes {
    /// Moves what the last poll of this thread left in here.
    pub fn gather(&mut self) {
        NOTES.with_borrow_mut(|notes| {
            if let Some(refusal) = notes.refusal.take() {
                self.refusal = Some(refusal);
            }
            if let Some(shown) = notes.shown.take() {
                self.shown = Some(shown);
            }
        });
    }
}
