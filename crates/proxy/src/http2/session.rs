//! The state of one connection: its streams, windows and tables. What comes in
//! is read in `receive`, what goes out is written in `send`.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use hashbrown::HashMap;

use super::collect::{Collector, Refusal};
use super::flow::{RecvWindow, SendWindow};
use super::frame::{self, MOST, PREFACE};
use super::guard::Guard;
use super::hpack::Decoder;
use super::outbox::Outbox;
use super::reason::{ConnectionError, Gone, Reason};
use super::receive::{Block, Data};
use super::settings::{Peer, Settings, id};
use super::stream::Slot;
use crate::http::head::Head;

/// The window that a connection begins with (RFC 9113 section 6.9.2).
const FIRST_WINDOW: u32 = 65_535;
/// Closed streams that are remembered, to tell late frames from wrong ones.
const REMEMBERED: usize = 64;

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts streams.
    Server,
    /// Opens streams.
    Client,
}

/// A request that came.
#[derive(Debug)]
pub struct Accepted {
    /// Its stream, to be given back with [`Session::close`].
    pub slot: u32,
    /// Its head.
    pub head: Head,
    /// `:protocol` of an extended CONNECT (RFC 8441); empty = none.
    pub protocol: Vec<u8>,
    /// The client waits for a 100.
    pub expects: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    pub(super) role: Role,
    pub(super) settings: Settings,
    pub(super) peer: Peer,
    /// Bytes of the client's preface that are still to come.
    pub(super) preface: &'static [u8],
    /// The peer's first frame came.
    pub(super) begun: bool,
    pub(super) decoder: Decoder,
    pub(super) collector: Collector,
    pub(super) block: Option<Block>,
    /// The beginning of a field whose end is in the next frame.
    pub(super) partial: Vec<u8>,
    pub(super) data: Option<Data>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    pub(super) ids: HashMap<u32, u32>,
    /// Streams with an open half.
    pub(super) open: u32,
    /// Highest stream that the peer opened.
    pub(super) last_peer: u32,
    pub(super) next_own: u32,
    pub(super) send: SendWindow,
    pub(super) recv: RecvWindow,
    pub(super) out: Outbox,
    pub(super) guard: Guard,
    pub(super) accepted: VecDeque<Accepted>,
    pub(super) refused: VecDeque<Refusal>,
    recent: VecDeque<(u32, bool)>,
    forgotten: bool,
    /// The peer's decoder was told that its table stays empty.
    pub(super) table_told: bool,
    /// The peer was told that no further stream is served.
    pub(super) left: bool,
    /// The last stream that the peer serves, once it says so.
    pub(super) peer_last: Option<u32>,
    pub(super) blocked: u32,
    /// The connection is over.
    pub(super) over: bool,
    /// Who waits for the peer's first settings.
    pub(super) curious: Vec<Waker>,
    /// Data of the last answer to a PING.
    pub(super) pong: Option<[u8; 8]>,
}

/// What is known of a stream that has no state any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// It never was.
    Idle,
    /// It was passed over, or ended in order or by the peer.
    Closed,
    /// It was passed over by one with a higher number.
    Skipped,
    /// This side reset it: frames may still be on their way.
    Reset,
    /// Too long ago to know.
    Forgotten,
}

impl Session {
    /// A connection, its first frames waiting to be sent.
    pub fn new(role: Role, settings: Settings) -> Self {
        let mut session = Self {
            role,
            peer: Peer::default(),
            preface: match role {
                Role::Server => PREFACE,
                Role::Client => &[],
            },
            begun: false,
            decoder: Decoder::new(settings.header_table as usize),
            collector: Collector::new(settings.header_list, settings.headers),
            block: None,
            partial: Vec::new(),
            data: None,
            slots: Vec::new(),
            free: Vec::new(),
            ids: HashMap::new(),
            open: 0,
            last_peer: 0,
            next_own: 1,
            send: SendWindow::new(FIRST_WINDOW),
            recv: RecvWindow::new(settings.connection_window.max(FIRST_WINDOW)),
            out: Outbox::default(),
            guard: Guard::default(),
            accepted: VecDeque::new(),
            refused: VecDeque::new(),
            recent: VecDeque::new(),
            forgotten: false,
            table_told: false,
            left: false,
            peer_last: None,
            blocked: 0,
            over: false,
            curious: Vec::new(),
            pong: None,
            settings,
        };
        session.greet();
        session
    }

    fn greet(&mut self) {
        let settings = &self.settings;
        let out = self.out.message();
        if self.role == Role::Client {
            out.extend_from_slice(PREFACE);
        }
        let table = (id::HEADER_TABLE_SIZE, settings.header_table);
        let window = (id::INITIAL_WINDOW_SIZE, settings.stream_window);
        match self.role {
            Role::Server => {
                let connect = u32::from(settings.connect_protocol);
                let all = [
                    table,
                    (id::ENABLE_CONNECT_PROTOCOL, connect),
                    (id::MAX_CONCURRENT_STREAMS, settings.max_streams),
                    window,
                ];
                frame::write_settings(out, &all);
            }
            Role::Client => {
                frame::write_settings(out, &[table, (id::ENABLE_PUSH, 0), window]);
            }
        }
        let more = settings.connection_window.saturating_sub(FIRST_WINDOW);
        if more > 0 {
            frame::write_window_update(self.out.message(), 0, more);
        }
    }

    /// The next request that came.
    pub fn next_accepted(&mut self) -> Option<Accepted> {
        self.accepted.pop_front()
    }

    /// The next request that was refused, which nobody sees but its log.
    pub fn next_refused(&mut self) -> Option<Refusal> {
        self.refused.pop_front()
    }

    /// What was wrong with a message on that stream, where something was.
    pub fn broken(&self, index: u32) -> Option<&'static str> {
        self.peek(index)?.broken
    }

    /// The code with which the peer reset that stream, where it did.
    pub fn reset_by_peer(&self, index: u32) -> Option<Reason> {
        match self.peek(index)?.gone? {
            Gone::Remote(reason) => Some(reason),
            Gone::Local(_) | Gone::Connection => None,
        }
    }

    /// Streams that are somebody's.
    pub fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether the connection is over: nothing comes and nothing more is sent
    /// than what waits.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether one more stream may be opened (clients).
    pub fn can_open(&self) -> bool {
        let exhausted = self.next_own > MOST;
        !self.over
            && !self.left
            && self.peer_last.is_none()
            && !exhausted
            && self.open < self.peer.max_streams
    }

    /// Whether the peer said that it goes.
    pub fn peer_leaves(&self) -> bool {
        self.peer_last.is_some()
    }

    /// Whether the peer serves extended CONNECT (RFC 8441), once its settings came.
    pub fn poll_connect_protocol(&mut self, cx: &Context<'_>) -> Poll<bool> {
        if self.peer.told || self.over {
            return Poll::Ready(self.peer.connect_protocol && !self.over);
        }
        if !self.curious.iter().any(|w| w.will_wake(cx.waker())) {
            self.curious.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Data of an answer to a PING that came since the last call.
    pub fn take_pong(&mut self) -> Option<[u8; 8]> {
        self.pong.take()
    }

    pub(super) fn slot(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn peek(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().flatten()
    }

    pub(super) fn insert(&mut self, slot: Slot) -> u32 {
        self.open += 1;
        self.guard.opened();
        let id = slot.id;
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(slot);
                index
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() as u32 - 1
            }
        };
        self.ids.insert(id, index);
        index
    }

    /// The owner of a stream lets go of it: what is open of it is reset.
    pub fn close(&mut self, index: u32) {
        let role = self.role;
        let Some(slot) = self.slot(index) else {
            return;
        };
        if !slot.is_over() {
            let reason = match (role, slot.send_end) {
                // The answer is complete: the rest of the request is not wanted
                // (RFC 9113 section 8.1).
                (Role::Server, true) => Reason::NO_ERROR,
                (Role::Server, false) => Reason::INTERNAL_ERROR,
                (Role::Client, _) => Reason::CANCEL,
            };
            self.reset(index, reason);
        }
        self.discard(index);
        let Some(slot) = self.slots.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        if slot.blocked {
            self.blocked -= 1;
        }
        self.ids.remove(&slot.id);
        self.remember(slot.id, matches!(slot.gone, Some(Gone::Local(_))));
        self.free.push(index);
        // A server's connection says itself when it rests.
        if self.live() == 0 && role == Role::Client {
            self.rest();
        }
    }

    /// Gives memory back where nothing goes on.
    pub fn rest(&mut self) {
        if self.live() > 0 {
            return;
        }
        if self.slots.len() > 4 {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.ids = HashMap::new();
        }
        if self.block.is_none() {
            self.decoder.rest();
        }
        self.recent.shrink_to_fit();
    }

    /// Drops what came for a stream and opens the connection's window by it.
    pub(super) fn discard(&mut self, index: u32) {
        let held = self.slot(index).map_or(0, Slot::discard);
        self.release_connection(held);
    }

    /// Counts a stream whose halves are closed.
    pub(super) fn settle(&mut self, index: u32) {
        let Some(slot) = self.slot(index) else {
            return;
        };
        if slot.is_over() && !std::mem::replace(&mut slot.counted, true) {
            self.open -= 1;
            self.guard.closed();
        }
    }

    pub(super) fn remember(&mut self, id: u32, ours: bool) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
            self.forgotten = true;
        }
        self.recent.push_back((id, ours));
    }

    /// What a stream without state was.
    pub(super) fn past(&self, id: u32) -> Past {
        let by_peer = (id % 2 == 1) == (self.role == Role::Server);
        let idle = match by_peer {
            true => id > self.last_peer,
            false => id >= self.next_own || id.is_multiple_of(2),
        };
        if idle {
            return Past::Idle;
        }
        match self.recent.iter().rfind(|(other, _)| *other == id) {
            Some((_, true)) => Past::Reset,
            Some((_, false)) => Past::Closed,
            None if self.forgotten => Past::Forgotten,
            None => Past::Skipped,
        }
    }

    /// The connection ends because of an error, which the peer is told.
    pub fn fail(&mut self, error: ConnectionError) {
        if !self.over {
            frame::write_goaway(self.out.control(), self.last_peer, error.reason);
        }
        self.end_all(Gone::Local(error.reason));
    }

    /// The connection ended.
    pub fn end(&mut self) {
        self.end_all(Gone::Connection);
    }

    fn end_all(&mut self, gone: Gone) {
        self.over = true;
        self.curious.drain(..).for_each(Waker::wake);
        for slot in self.all() {
            if !slot.is_over() {
                slot.gone = Some(gone);
            }
            slot.wake();
        }
    }

    /// Asks the peer to open no further streams; those on their way are served.
    pub fn leave(&mut self) {
        if !self.over && !self.left {
            frame::write_goaway(self.out.control(), MOST, Reason::NO_ERROR);
        }
    }

    /// Serves no further streams.
    pub fn leave_now(&mut self) {
        if !self.over && !std::mem::replace(&mut self.left, true) {
            frame::write_goaway(self.out.control(), self.last_peer, Reason::NO_ERROR);
        }
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self, data: [u8; 8]) {
        if !self.over {
            frame::write_ping(self.out.control(), false, &data);
        }
    }
}
