//! Frames that come: which may come when (RFC 9113 sections 5 and 6), and what
//! they do to streams.

use std::task::Waker;

use super::collect::{Kind, MESSAGE, Refusal};
use super::frame::{self, FrameHead, HEAD, MOST, PAYLOAD, flag, kind};
use super::guard::{self, Guard};
use super::reason::{ConnectionError, Gone, Reason};
use super::session::{Accepted, Past, Role, Session};
use super::stream::Slot;
use crate::http::heads;

type Done = Result<(), ConnectionError>;

/// A header block that is being received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    stream: u32,
    target: Target,
    end: bool,
    bytes: usize,
    now: u64,
}

/// What a header block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Request,
    Answer(u32),
    Trailers(u32),
    Nothing,
}

/// A DATA frame that is being received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    stream: u32,
    left: usize,
    padding: usize,
    end: bool,
}

impl Session {
    /// Reads frames. Returns how many bytes were used; what is left is the
    /// beginning of a frame. `now` is a clock's milliseconds.
    pub fn receive(&mut self, input: &[u8], now: u64) -> Result<usize, ConnectionError> {
        let mut at = 0;
        while !self.over {
            let used = self.step(&input[at..], now)?;
            if used == 0 {
                break;
            }
            at += used;
            self.out.check(&self.settings)?;
            if self.role == Role::Server {
                self.guard.check_faults()?;
            }
        }
        Ok(at)
    }

    fn step(&mut self, input: &[u8], now: u64) -> Result<usize, ConnectionError> {
        if !self.preface.is_empty() {
            return self.preface(input);
        }
        if self.data.is_some() {
            return Ok(self.data_piece(input));
        }
        let Some(head) = FrameHead::read(input) else {
            return Ok(0);
        };
        // Another protocol's bytes look like a frame without end.
        if !self.begun && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(ConnectionError::protocol("first frame is not SETTINGS"));
        }
        if head.length > PAYLOAD {
            return Err(ConnectionError::size("frame too large"));
        }
        let continues = self.block.map(|b| b.stream);
        if continues.is_some_and(|s| head.kind != kind::CONTINUATION || head.stream != s) {
            return Err(ConnectionError::protocol("header block interrupted"));
        }
        if head.kind == kind::DATA {
            return self.begin_data(head, &input[HEAD..]);
        }
        let Some(payload) = input[HEAD..].get(..head.length) else {
            return Ok(0);
        };
        self.frame(head, payload, now)?;
        Ok(HEAD + head.length)
    }

    fn preface(&mut self, input: &[u8]) -> Result<usize, ConnectionError> {
        let count = input.len().min(self.preface.len());
        if input[..count] != self.preface[..count] {
            return Err(ConnectionError::protocol("bad preface"));
        }
        self.preface = &self.preface[count..];
        Ok(count)
    }

    fn frame(&mut self, head: FrameHead, payload: &[u8], now: u64) -> Done {
        self.begun = true;
        match head.kind {
            kind::HEADERS => self.headers(head, payload, now),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::PRIORITY => self.priority(head, payload),
            kind::RST_STREAM => self.rst_stream(head, payload, now),
            kind::SETTINGS => self.take_settings(head, payload),
            kind::PUSH_PROMISE => Err(ConnectionError::protocol("PUSH_PROMISE")),
            kind::PING => self.take_ping(head, payload),
            kind::GOAWAY => self.goaway(head, payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            // Section 5.5.
            _ => Ok(()),
        }
    }

    fn begin_data(&mut self, head: FrameHead, payload: &[u8]) -> Result<usize, ConnectionError> {
        if head.stream == 0 {
            return Err(ConnectionError::protocol("DATA on stream 0"));
        }
        let (padding, before) = match head.has(flag::PADDED) {
            false => (0, 0),
            true if head.length == 0 => return Err(ConnectionError::size("no padding length")),
            true => match payload.first() {
                None => return Ok(0),
                Some(length) => (usize::from(*length), 1),
            },
        };
        let Some(left) = (head.length - before).checked_sub(padding) else {
            return Err(ConnectionError::protocol("padding too long"));
        };
        self.guard.part(head, left, &self.settings)?;
        if !self.recv.take(head.length) {
            let reason = Reason::FLOW_CONTROL_ERROR;
            return Err(ConnectionError::new(reason, "connection window exceeded"));
        }
        self.admit_data(head, left)?;
        self.data = Some(Data {
            stream: head.stream,
            left,
            padding,
            end: head.has(flag::END_STREAM),
        });
        // Padding is used up at once, for the stream too.
        let extra = before + padding;
        self.release_connection(extra);
        if let Some(index) = self.ids.get(&head.stream).copied() {
            self.release_stream(index, extra);
        }
        if left + padding == 0 {
            self.end_data();
        }
        Ok(HEAD + before)
    }

    /// Whether a stream may get data; it is reset where it may not.
    fn admit_data(&mut self, head: FrameHead, length: usize) -> Done {
        let Some(index) = self.ids.get(&head.stream).copied() else {
            return match self.past(head.stream) {
                Past::Idle | Past::Skipped => Err(ConnectionError::protocol("DATA on idle stream")),
                Past::Reset => Ok(()),
                Past::Closed | Past::Forgotten => {
                    self.refuse(head.stream, Reason::STREAM_CLOSED);
                    Ok(())
                }
            };
        };
        let client = self.role == Role::Client;
        let Some(slot) = self.slot(index) else {
            return Ok(());
        };
        let wrong = match slot.gone {
            Some(Gone::Remote(_)) => {
                let reason = Reason::STREAM_CLOSED;
                return Err(ConnectionError::new(reason, "DATA after RST_STREAM"));
            }
            Some(_) => None,
            None if slot.recv_end => {
                let reason = Reason::STREAM_CLOSED;
                return Err(ConnectionError::new(reason, "DATA after END_STREAM"));
            }
            None if client && !slot.head_came => Some(Reason::PROTOCOL_ERROR),
            None if !slot.recv.take(head.length) => Some(Reason::FLOW_CONTROL_ERROR),
            None => slot.count(length, head.has(flag::END_STREAM)).err(),
        };
        if let Some(reason) = wrong {
            slot.broken = Some(MESSAGE);
            self.fault(index, reason);
        }
        Ok(())
    }

    /// Takes what came of a DATA frame. Returns how many bytes.
    fn data_piece(&mut self, input: &[u8]) -> usize {
        let Some(data) = &mut self.data else {
            return 0;
        };
        let count = data.left.min(input.len());
        let padding = data.padding.min(input.len() - count);
        data.left -= count;
        data.padding -= padding;
        let (stream, whole) = (data.stream, data.left + data.padding == 0);
        let index = self.ids.get(&stream).copied();
        match index.and_then(|index| self.slot(index)) {
            Some(slot) if slot.gone.is_none() => {
                slot.put(&input[..count]);
                slot.wake();
            }
            _ => self.release_connection(count),
        }
        if whole {
            self.end_data();
        }
        count + padding
    }

    fn end_data(&mut self) {
        let Some(data) = self.data.take().filter(|data| data.end) else {
            return;
        };
        if let Some(index) = self.ids.get(&data.stream).copied() {
            self.end_receiving(index);
        }
    }

    fn end_receiving(&mut self, index: u32) {
        if let Some(slot) = self.slot(index).filter(|slot| slot.gone.is_none()) {
            slot.recv_end = true;
            slot.wake();
            self.settle(index);
        }
    }

    fn headers(&mut self, head: FrameHead, payload: &[u8], now: u64) -> Done {
        if head.stream == 0 {
            return Err(ConnectionError::protocol("HEADERS on stream 0"));
        }
        let mut fragment = payload;
        if head.has(flag::PADDED) {
            let Some((padding, rest)) = fragment.split_first() else {
                return Err(ConnectionError::size("no padding length"));
            };
            let Some(length) = rest.len().checked_sub(usize::from(*padding)) else {
                return Err(ConnectionError::protocol("padding too long"));
            };
            fragment = &rest[..length];
        }
        let mut on_itself = false;
        if head.has(flag::PRIORITY) {
            let Some((priority, rest)) = fragment.split_first_chunk::<5>() else {
                return Err(ConnectionError::size("HEADERS too short for its priority"));
            };
            on_itself = depends_on(priority) == head.stream;
            fragment = rest;
        }
        self.guard.part(head, fragment.len(), &self.settings)?;
        let mut target = match self.role {
            Role::Server => self.of_client(head)?,
            Role::Client => self.of_server(head)?,
        };
        if on_itself && target != Target::Nothing {
            self.guard.fault();
            self.refuse(head.stream, Reason::PROTOCOL_ERROR);
            target = Target::Nothing;
        }
        let kind = match target {
            Target::Request => Some(Kind::Request(self.settings.connect_protocol)),
            Target::Answer(_) => Some(Kind::Response),
            Target::Trailers(_) => Some(Kind::Trailers),
            Target::Nothing => None,
        };
        match kind {
            Some(kind) => self.collector.begin(kind, heads::take()),
            None => self.collector.ignore(),
        }
        self.block = Some(Block {
            stream: head.stream,
            target,
            end: head.has(flag::END_STREAM),
            bytes: 0,
            now,
        });
        self.fragment(fragment, head.has(flag::END_HEADERS))
    }

    /// What a client's HEADERS are for.
    fn of_client(&mut self, head: FrameHead) -> Result<Target, ConnectionError> {
        let id = head.stream;
        if let Some(index) = self.ids.get(&id).copied() {
            return self.of_known(index, head);
        }
        if id.is_multiple_of(2) {
            return Err(ConnectionError::protocol("even stream of a client"));
        }
        match self.past(id) {
            Past::Idle => {}
            Past::Reset => return Ok(Target::Nothing),
            Past::Skipped => return Err(ConnectionError::protocol("stream number too low")),
            Past::Closed => {
                let reason = Reason::STREAM_CLOSED;
                return Err(ConnectionError::new(reason, "HEADERS on a closed stream"));
            }
            Past::Forgotten => {
                self.refuse(id, Reason::STREAM_CLOSED);
                return Ok(Target::Nothing);
            }
        }
        self.last_peer = id;
        if self.left {
            self.remember(id, true);
            return Ok(Target::Nothing);
        }
        // Streams that were reset and are still being wound up count too.
        let most = self.settings.max_streams;
        if self.open >= most || self.live() >= 2 * most as usize + 100 {
            self.refuse(id, Reason::REFUSED_STREAM);
            return Ok(Target::Nothing);
        }
        Ok(Target::Request)
    }

    /// What a server's HEADERS are for.
    fn of_server(&mut self, head: FrameHead) -> Result<Target, ConnectionError> {
        if let Some(index) = self.ids.get(&head.stream).copied() {
            return self.of_known(index, head);
        }
        match self.past(head.stream) {
            Past::Idle => Err(ConnectionError::protocol("HEADERS on idle stream")),
            _ => Ok(Target::Nothing),
        }
    }

    fn of_known(&mut self, index: u32, head: FrameHead) -> Result<Target, ConnectionError> {
        let client = self.role == Role::Client;
        let Some(slot) = self.slot(index) else {
            return Ok(Target::Nothing);
        };
        let wrong = match slot.gone {
            Some(Gone::Remote(_)) => {
                let reason = Reason::STREAM_CLOSED;
                return Err(ConnectionError::new(reason, "HEADERS after RST_STREAM"));
            }
            Some(_) => return Ok(Target::Nothing),
            None if slot.recv_end => Reason::STREAM_CLOSED,
            None if client && !slot.head_came => return Ok(Target::Answer(index)),
            None if head.has(flag::END_STREAM) => return Ok(Target::Trailers(index)),
            // Trailers end a stream (section 8.1).
            None => Reason::PROTOCOL_ERROR,
        };
        slot.broken = Some(MESSAGE);
        self.fault(index, wrong);
        Ok(Target::Nothing)
    }

    fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if self.block.is_none() {
            return Err(ConnectionError::protocol("CONTINUATION of nothing"));
        }
        self.guard.part(head, payload.len(), &self.settings)?;
        self.fragment(payload, head.has(flag::END_HEADERS))
    }

    fn fragment(&mut self, fragment: &[u8], last: bool) -> Done {
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        block.bytes += fragment.len();
        Guard::block(block.bytes, &self.settings)?;
        let mut partial = std::mem::take(&mut self.partial);
        let collector = &mut self.collector;
        let mut keep = |name: &[u8], value: &[u8]| collector.field(name, value);
        let decoded = if partial.is_empty() {
            let decoded = self.decoder.decode(fragment, last, &mut keep);
            if let Ok(used) = decoded {
                partial.extend_from_slice(&fragment[used..]);
            }
            decoded
        } else {
            partial.extend_from_slice(fragment);
            let decoded = self.decoder.decode(&partial, last, &mut keep);
            if let Ok(used) = decoded {
                partial.drain(..used);
            }
            decoded
        };
        if let Err(error) = decoded {
            tracing::debug!(target: crate::logger::HTTP2, %error, "header block");
            let reason = Reason::COMPRESSION_ERROR;
            return Err(ConnectionError::new(
                reason,
                "header block cannot be decoded",
            ));
        }
        // A field that alone is far over the limit.
        if partial.len() > 2 * self.settings.header_list + PAYLOAD {
            return Err(ConnectionError::calm("header field without end"));
        }
        self.partial = partial;
        if self.collector.is_over() {
            let refusal = self.collector.finish();
            self.refuse_block(Reason::INTERNAL_ERROR, refusal);
        }
        if last {
            self.partial = Vec::new();
            self.end_block();
        }
        Ok(())
    }

    /// Resets the stream of the block, the rest of which is only decoded.
    fn refuse_block(&mut self, reason: Reason, refusal: Option<Refusal>) {
        let Some(block) = &mut self.block else {
            return;
        };
        let stream = block.stream;
        let target = std::mem::replace(&mut block.target, Target::Nothing);
        match target {
            Target::Request => self.refused.extend(refusal),
            Target::Answer(index) | Target::Trailers(index) => {
                if let Some(slot) = self.slot(index) {
                    slot.broken = refusal.map(Refusal::details);
                }
            }
            Target::Nothing => {}
        }
        heads::give(std::mem::take(&mut self.collector.head));
        self.collector.ignore();
        self.guard.fault();
        self.refuse(stream, reason);
    }

    fn end_block(&mut self) {
        let refusal = self.collector.finish();
        if self.block.is_some_and(|b| b.target != Target::Nothing)
            && let Some(why) = refusal
        {
            tracing::debug!(target: crate::logger::HTTP2, ?why, "HTTP/2 message refused");
            self.refuse_block(Reason::PROTOCOL_ERROR, refusal);
        }
        let Some(block) = self.block.take() else {
            return;
        };
        match block.target {
            Target::Nothing => {}
            Target::Request => self.accept(block),
            Target::Answer(index) => self.answered(index, block.end),
            Target::Trailers(index) => {
                let head = std::mem::take(&mut self.collector.head);
                let Some(slot) = self.slot(index) else {
                    return;
                };
                match slot.count(0, true) {
                    Ok(()) => {
                        slot.trailers = Some(head);
                        self.end_receiving(index);
                    }
                    Err(reason) => {
                        slot.broken = Some(MESSAGE);
                        self.fault(index, reason);
                    }
                }
            }
        }
    }

    fn accept(&mut self, block: Block) {
        let length = self.collector.length;
        if block.end && length.is_some_and(|length| length > 0) {
            self.refused.push_back(Refusal::Malformed(MESSAGE));
            return self.refuse_new(block.stream, Reason::PROTOCOL_ERROR);
        }
        let (send, recv) = (self.peer.stream_window, self.settings.stream_window);
        let mut slot = Slot::new(block.stream, send, recv, block.now);
        slot.left = length;
        slot.recv_end = block.end;
        slot.bare = block.end;
        let index = self.insert(slot);
        self.accepted.push_back(Accepted {
            slot: index,
            head: std::mem::take(&mut self.collector.head),
            protocol: std::mem::take(&mut self.collector.protocol),
            expects: self.collector.expects,
        });
    }

    fn refuse_new(&mut self, stream: u32, reason: Reason) {
        heads::give(std::mem::take(&mut self.collector.head));
        self.guard.fault();
        self.refuse(stream, reason);
    }

    /// A head of the answer came: an informational one is passed over.
    fn answered(&mut self, index: u32, end: bool) {
        let head = std::mem::take(&mut self.collector.head);
        let length = self.collector.length;
        let Some(slot) = self.slot(index) else {
            return;
        };
        if head.status < 200 {
            if slot.inform && !end && heads::is_special(head.status) {
                slot.inform = false;
                slot.early = Some(Box::new(head));
                slot.wake();
            } else {
                heads::give(head);
            }
            if end {
                self.fault(index, Reason::PROTOCOL_ERROR);
            }
            return;
        }
        slot.to_head |= head.status == 304 || head.status == 204;
        slot.head_came = true;
        slot.bare = end;
        slot.left = length;
        if end && let Err(reason) = slot.count(0, true) {
            heads::give(head);
            return self.fault(index, reason);
        }
        slot.head = Some(head);
        slot.wake();
        if end {
            self.end_receiving(index);
        }
    }

    fn priority(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if head.stream == 0 {
            return Err(ConnectionError::protocol("PRIORITY on stream 0"));
        }
        self.guard.priority(&self.settings)?;
        match payload.first_chunk::<5>() {
            // What it says is not used (RFC 9113 section 5.3.2).
            Some(_) if payload.len() == 5 => Ok(()),
            _ => self.stream_error(head.stream, Reason::FRAME_SIZE_ERROR),
        }
    }

    /// Resets a stream for what the peer got wrong.
    fn fault(&mut self, index: u32, reason: Reason) {
        self.guard.fault();
        self.reset(index, reason);
    }

    /// Resets a stream for a frame that is wrong whatever its state is.
    fn stream_error(&mut self, stream: u32, reason: Reason) -> Done {
        if let Some(index) = self.ids.get(&stream).copied() {
            self.fault(index, reason);
            return Ok(());
        }
        match self.past(stream) {
            // There is no stream to be reset.
            Past::Idle => Err(ConnectionError::new(reason, "wrong frame on idle stream")),
            _ => Ok(()),
        }
    }

    fn rst_stream(&mut self, head: FrameHead, payload: &[u8], now: u64) -> Done {
        let Ok(code) = <[u8; 4]>::try_from(payload) else {
            return Err(ConnectionError::size("RST_STREAM"));
        };
        let Some(index) = self.ids.get(&head.stream).copied() else {
            return match head.stream == 0 || self.past(head.stream) == Past::Idle {
                true => Err(ConnectionError::protocol("RST_STREAM on idle stream")),
                false => self.guard.late_reset(),
            };
        };
        let server = self.role == Role::Server;
        let Some(slot) = self.slot(index).filter(|slot| slot.gone.is_none()) else {
            return self.guard.late_reset();
        };
        slot.gone = Some(Gone::Remote(Reason(u32::from_be_bytes(code))));
        slot.wake();
        let early = server && !slot.answered && now.saturating_sub(slot.opened) < guard::YOUNG_MS;
        if !slot.recv_end || server {
            self.discard(index);
        }
        self.settle(index);
        match early {
            true => self.guard.early_reset(),
            false => Ok(()),
        }
    }

    fn take_settings(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if head.stream != 0 {
            return Err(ConnectionError::protocol("SETTINGS on a stream"));
        }
        if head.has(flag::ACK) {
            return match payload.is_empty() {
                true => Ok(()),
                false => Err(ConnectionError::size("SETTINGS ACK with settings")),
            };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(ConnectionError::size("SETTINGS"));
        }
        if !std::mem::replace(&mut self.peer.told, true) {
            self.peer.max_streams = u32::MAX;
        }
        let before = i64::from(self.peer.stream_window);
        for [a, b, value @ ..] in payload.as_chunks::<6>().0 {
            let (id, value) = (u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value));
            self.peer.set(id, value, self.role == Role::Server)?;
        }
        self.curious.drain(..).for_each(Waker::wake);
        let change = i64::from(self.peer.stream_window) - before;
        if change != 0 {
            for slot in self.all() {
                if !slot.send.grow(change) {
                    let reason = Reason::FLOW_CONTROL_ERROR;
                    return Err(ConnectionError::new(reason, "window too large"));
                }
                slot.wake();
            }
        }
        frame::write(self.out.control(), kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn take_ping(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        let Ok(data) = <[u8; 8]>::try_from(payload) else {
            return Err(ConnectionError::size("PING"));
        };
        if head.stream != 0 {
            return Err(ConnectionError::protocol("PING on a stream"));
        }
        match head.has(flag::ACK) {
            true => self.pong = Some(data),
            false => frame::write_ping(self.out.control(), true, &data),
        }
        Ok(())
    }

    fn goaway(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if head.stream != 0 {
            return Err(ConnectionError::protocol("GOAWAY on a stream"));
        }
        let Some(last) = payload.first_chunk::<4>().filter(|_| payload.len() >= 8) else {
            return Err(ConnectionError::size("GOAWAY"));
        };
        let last = u32::from_be_bytes(*last) & MOST;
        self.peer_last = Some(last);
        if self.role == Role::Client {
            let unserved = |slot: &&mut Slot| slot.id > last && !slot.is_over();
            for slot in self.all().filter(unserved) {
                slot.gone = Some(Gone::Remote(Reason::REFUSED_STREAM));
                slot.wake();
            }
        }
        Ok(())
    }

    fn window_update(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        let Ok(increment) = <[u8; 4]>::try_from(payload) else {
            return Err(ConnectionError::size("WINDOW_UPDATE"));
        };
        self.guard.window_update(&self.settings)?;
        let increment = u32::from_be_bytes(increment) & MOST;
        if head.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE by nothing"));
            }
            if !self.send.grow(increment.into()) {
                let reason = Reason::FLOW_CONTROL_ERROR;
                return Err(ConnectionError::new(reason, "window too large"));
            }
            self.unblock();
            return Ok(());
        }
        let Some(index) = self.ids.get(&head.stream).copied() else {
            return match self.past(head.stream) {
                Past::Idle => Err(ConnectionError::protocol("WINDOW_UPDATE on idle stream")),
                _ => Ok(()),
            };
        };
        let Some(slot) = self.slot(index).filter(|slot| slot.gone.is_none()) else {
            return Ok(());
        };
        if increment == 0 {
            self.fault(index, Reason::PROTOCOL_ERROR);
        } else if !slot.send.grow(increment.into()) {
            self.fault(index, Reason::FLOW_CONTROL_ERROR);
        } else if slot.blocked {
            slot.wake();
        }
        Ok(())
    }
}

/// The stream that a priority depends on.
fn depends_on(priority: &[u8; 5]) -> u32 {
    let [a, b, c, d, _] = *priority;
    u32::from_be_bytes([a, b, c, d]) & MOST
}
