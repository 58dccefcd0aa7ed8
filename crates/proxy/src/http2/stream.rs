//! One stream of a connection: which halves are open, what came and was not yet
//! taken, who waits for more.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::flow::{RecvWindow, SendWindow};
use super::reason::{Gone, Reason};
use crate::http::head::Head;
use crate::io::buffer;

/// Most bytes of a body in one piece.
const PIECE: usize = 16 * 1024;

/// The state of a stream. It lives until its owner lets go of it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: u32,
    pub(super) send: SendWindow,
    pub(super) recv: RecvWindow,
    /// Nothing more is sent.
    pub(super) send_end: bool,
    /// Nothing more comes.
    pub(super) recv_end: bool,
    /// The message that came ended with its head.
    pub(super) bare: bool,
    /// The answer's head went out.
    pub(super) answered: bool,
    /// The answer's final head came (clients).
    pub(super) head_came: bool,
    /// Why the stream is no more.
    pub(super) gone: Option<Gone>,
    /// Body bytes that the message's length leaves.
    pub(super) left: Option<u64>,
    /// The answer to this request has no body, whatever its length says.
    pub(super) to_head: bool,
    /// The first informational head is wanted too.
    pub(super) inform: bool,
    /// It came and was not yet taken.
    pub(super) early: Option<Box<Head>>,
    /// What was wrong with its message.
    pub(super) broken: Option<&'static str>,
    /// It was counted as closed.
    pub(super) counted: bool,
    /// When it was opened (ms).
    pub(super) opened: u64,
    /// Its owner waits until it may send.
    pub(super) blocked: bool,
    pub(super) head: Option<Head>,
    pub(super) trailers: Option<Head>,
    first: Vec<u8>,
    more: VecDeque<Vec<u8>>,
    /// Body bytes that came and were not yet used up.
    pub(super) held: usize,
    task: Option<Waker>,
}

impl Slot {
    pub(super) fn new(id: u32, send: u32, recv: u32, now: u64) -> Self {
        Self {
            id,
            send: SendWindow::new(send),
            recv: RecvWindow::new(recv),
            send_end: false,
            recv_end: false,
            bare: false,
            answered: false,
            head_came: false,
            gone: None,
            left: None,
            to_head: false,
            inform: false,
            early: None,
            broken: None,
            counted: false,
            opened: now,
            blocked: false,
            head: None,
            trailers: None,
            first: Vec::new(),
            more: VecDeque::new(),
            held: 0,
            task: None,
        }
    }

    /// Has the task that owns the stream look at it again.
    pub(super) fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// The task that is woken when something happens.
    pub(super) fn register(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|t| t.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }

    /// Neither half is open.
    pub(super) fn is_over(&self) -> bool {
        self.gone.is_some() || (self.send_end && self.recv_end)
    }

    /// Keeps received data until it is taken.
    pub(super) fn put(&mut self, mut data: &[u8]) {
        self.held += data.len();
        while !data.is_empty() {
            let last = self.more.back_mut().unwrap_or(&mut self.first);
            if last.capacity() == 0 {
                *last = buffer::take_small();
            }
            let room = PIECE.saturating_sub(last.len());
            if room == 0 {
                self.more.push_back(buffer::take_small());
                continue;
            }
            let (now, rest) = data.split_at(data.len().min(room));
            last.extend_from_slice(now);
            data = rest;
        }
    }

    /// Takes a piece of the body. `None` at its end.
    pub(super) fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Vec<u8>>, Gone>> {
        if !self.first.is_empty() {
            let next = self.more.pop_front().unwrap_or_default();
            return Poll::Ready(Ok(Some(std::mem::replace(&mut self.first, next))));
        }
        if self.recv_end {
            return Poll::Ready(Ok(None));
        }
        if let Some(gone) = self.gone {
            return Poll::Ready(Err(gone));
        }
        self.register(cx);
        Poll::Pending
    }

    /// Forgets data that nobody will take; returns how much.
    pub(super) fn discard(&mut self) -> usize {
        buffer::give_small(std::mem::take(&mut self.first));
        for piece in std::mem::take(&mut self.more) {
            buffer::give_small(piece);
        }
        std::mem::take(&mut self.held)
    }

    /// Counts body bytes against the message's length. An error ends the stream.
    pub(super) fn count(&mut self, bytes: usize, end: bool) -> Result<(), Reason> {
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(bytes as u64)
                .ok_or(Reason::PROTOCOL_ERROR)?;
            if end && *left > 0 && !self.to_head {
                return Err(Reason::PROTOCOL_ERROR);
            }
        }
        Ok(())
    }
}
