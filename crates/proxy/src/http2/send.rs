//! What the owners of streams do with them: heads, bodies and resets to frames,
//! received bodies taken and their window given back.

use std::io::IoSlice;
use std::task::{Context, Poll};

use super::encode::{write_request, write_response, write_trailers};
use super::frame::{self, PAYLOAD};
use super::hpack::begin_table;
use super::outbox::{Outbox, close_head};
use super::reason::{ConnectionError, Gone, Reason};
use super::session::{Role, Session};
use super::stream::Slot;
use crate::http::head::Head;

impl Session {
    /// Sends an answer's head, informational or final, with `status` in place of
    /// the head's own.
    pub fn respond(&mut self, index: u32, head: &Head, status: u16, end: bool) -> Result<(), Gone> {
        self.head(index, end, |out| write_response(head, status, out))?;
        if let Some(slot) = self.slot(index) {
            slot.answered |= status >= 200;
        }
        Ok(())
    }

    /// Opens a stream with a request; with `protocol` it is an extended CONNECT.
    /// `None` when the connection takes no more.
    pub fn open(&mut self, head: &Head, protocol: &[u8], end: bool, now: u64) -> Option<u32> {
        if self.role == Role::Server || !self.can_open() {
            return None;
        }
        let id = self.next_own;
        self.next_own += 2;
        let (send, recv) = (self.peer.stream_window, self.settings.stream_window);
        let mut slot = Slot::new(id, send, recv, now);
        slot.to_head = head.method() == b"HEAD";
        let index = self.insert(slot);
        let opened = self.head(index, end, |out| write_request(head, protocol, out));
        opened.is_ok().then_some(index)
    }

    fn head(
        &mut self,
        index: u32,
        end: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Gone> {
        let stream = self.writable(index)?.id;
        let largest = self.peer.frame;
        let told = std::mem::replace(&mut self.table_told, true);
        let out = self.out.message();
        let place = Outbox::open_head(out);
        if !told {
            begin_table(out);
        }
        write(out);
        close_head(out, place, stream, end, largest);
        if end {
            self.end_sending(index);
        }
        Ok(())
    }

    fn writable(&mut self, index: u32) -> Result<&mut Slot, Gone> {
        match self.slot(index) {
            Some(slot) => match slot.gone {
                Some(gone) => Err(gone),
                None if slot.send_end => Err(Gone::Local(Reason::NO_ERROR)),
                None => Ok(slot),
            },
            None => Err(Gone::Connection),
        }
    }

    fn end_sending(&mut self, index: u32) {
        if let Some(slot) = self.slot(index) {
            slot.send_end = true;
            self.settle(index);
        }
    }

    /// Sends a piece of a body, as much as the windows and the buffer allow.
    pub fn poll_data(
        &mut self,
        index: u32,
        data: &[u8],
        cx: &Context<'_>,
    ) -> Poll<Result<usize, Gone>> {
        let most = self.send.room().min(self.out.room()).min(PAYLOAD);
        let slot = match self.writable(index) {
            Ok(slot) => slot,
            Err(gone) => return Poll::Ready(Err(gone)),
        };
        let count = data.len().min(slot.send.room()).min(most);
        if count == 0 && !data.is_empty() {
            slot.register(cx);
            if !std::mem::replace(&mut slot.blocked, true) {
                self.blocked += 1;
            }
            return Poll::Pending;
        }
        slot.send.take(count);
        let id = slot.id;
        if std::mem::take(&mut slot.blocked) {
            self.blocked -= 1;
        }
        self.send.take(count);
        self.out.data(id, &data[..count], false);
        self.guard.data_sent();
        Poll::Ready(Ok(count))
    }

    /// Ends a message, with trailers where there are any.
    pub fn finish(&mut self, index: u32, trailers: Option<&Head>) -> Result<(), Gone> {
        match trailers {
            Some(head) => self.head(index, true, |out| write_trailers(head, out)),
            None => {
                let id = self.writable(index)?.id;
                self.out.end(id);
                self.end_sending(index);
                Ok(())
            }
        }
    }

    /// Resets a stream.
    pub fn reset(&mut self, index: u32, reason: Reason) {
        let over = self.over;
        let Some(slot) = self.slot(index).filter(|slot| slot.gone.is_none()) else {
            return;
        };
        let (id, closed) = (slot.id, slot.is_over());
        slot.gone = Some(Gone::Local(reason));
        slot.wake();
        if !over && (!closed || reason == Reason::STREAM_CLOSED) {
            frame::write_reset(self.out.control(), id, reason);
        }
        self.discard(index);
        self.settle(index);
    }

    /// Resets a stream that may have no state.
    pub(super) fn refuse(&mut self, stream: u32, reason: Reason) {
        match self.ids.get(&stream).copied() {
            Some(index) => self.reset(index, reason),
            None => {
                frame::write_reset(self.out.control(), stream, reason);
                self.remember(stream, true);
            }
        }
    }

    /// Takes a piece of the received body; `None` at its end. What was used of it
    /// is told to [`Session::release`].
    pub fn poll_piece(
        &mut self,
        index: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Gone>> {
        match self.slot(index) {
            Some(slot) => slot.poll_piece(cx),
            None => Poll::Ready(Err(Gone::Connection)),
        }
    }

    /// Has the first informational head given before the answer's.
    pub fn ask_informational(&mut self, index: u32) {
        if let Some(slot) = self.slot(index) {
            slot.inform = true;
        }
    }

    /// Takes the head of the answer.
    pub fn poll_head(&mut self, index: u32, cx: &Context<'_>) -> Poll<Result<Head, Gone>> {
        let Some(slot) = self.slot(index) else {
            return Poll::Ready(Err(Gone::Connection));
        };
        if let Some(head) = slot.early.take() {
            return Poll::Ready(Ok(*head));
        }
        if let Some(head) = slot.head.take() {
            return Poll::Ready(Ok(head));
        }
        if let Some(gone) = slot.gone {
            return Poll::Ready(Err(gone));
        }
        slot.register(cx);
        Poll::Pending
    }

    /// Gives the received trailers to `visit`; false when there are none.
    pub fn trailers(&self, index: u32, into: &mut Head) -> bool {
        let Some(trailers) = self.peek(index).and_then(|slot| slot.trailers.as_ref()) else {
            return false;
        };
        for (name, value) in trailers.lines() {
            into.add(name, value);
        }
        trailers.lines().next().is_some()
    }

    /// Whether the message that came ended with its head.
    pub fn is_bare(&self, index: u32) -> bool {
        self.peek(index).is_none_or(|slot| slot.bare)
    }

    /// Bytes of a body were used up: the peer may send as many.
    pub fn release(&mut self, index: u32, count: usize) {
        if let Some(slot) = self.slot(index) {
            // Of a stream that was reset the connection's share is back already.
            let held = slot.held.min(count);
            slot.held -= held;
            self.release_connection(held);
            self.release_stream(index, held);
        }
    }

    pub(super) fn release_connection(&mut self, count: usize) {
        if count > 0
            && !self.over
            && let Some(increment) = self.recv.release(count)
        {
            frame::write_window_update(self.out.control(), 0, increment);
        }
    }

    pub(super) fn release_stream(&mut self, index: u32, count: usize) {
        if count == 0 {
            return;
        }
        let Some(slot) = self.slot(index) else {
            return;
        };
        if slot.recv_end || slot.gone.is_some() {
            return;
        }
        let id = slot.id;
        if let Some(increment) = slot.recv.release(count) {
            frame::write_window_update(self.out.control(), id, increment);
        }
    }

    /// Ready when the peer gave the stream up, or its connection ended.
    pub fn poll_gone(&mut self, index: u32, cx: &Context<'_>) -> Poll<Gone> {
        match self.slot(index) {
            None => Poll::Ready(Gone::Connection),
            Some(slot) => match slot.gone {
                Some(gone) => Poll::Ready(gone),
                None => {
                    slot.register(cx);
                    Poll::Pending
                }
            },
        }
    }

    /// Wakes those who could not send.
    pub(super) fn unblock(&mut self) {
        if self.blocked > 0 {
            for slot in self.all().filter(|slot| slot.blocked) {
                slot.wake();
            }
        }
    }

    /// What is to be written.
    pub fn outgoing(&self) -> [IoSlice<'_>; 2] {
        self.out.slices()
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    /// So many bytes of [`Session::outgoing`] were written.
    pub fn wrote(&mut self, count: usize) {
        self.out.advance(count);
        if self.out.room() > 0 {
            self.unblock();
        }
    }

    /// Whether the peer left more unread than one that reads would.
    pub fn check(&self) -> Result<(), ConnectionError> {
        self.out.check(&self.settings)
    }

    /// Forgets what waits: nobody reads it.
    pub fn drop_outgoing(&mut self) {
        self.out.clear();
    }
}
