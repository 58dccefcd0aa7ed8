//! Plays a script on a connection and keeps what comes back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::hpack::{Decoder, Field};
use super::script::{self, Order, Step, Streams};

/// How long to wait for what should come.
pub const LONGEST: Duration = Duration::from_secs(8);

/// Something the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// SETTINGS: identifiers and values.
    Settings(Vec<(u16, u32)>),
    /// An acknowledgement of SETTINGS.
    SettingsAck,
    /// A whole header block.
    Headers {
        /// Its stream.
        stream: u32,
        /// Fields in their order.
        fields: Vec<Field>,
        /// END_STREAM.
        end: bool,
    },
    /// DATA without padding.
    Data {
        /// Its stream.
        stream: u32,
        /// The bytes.
        bytes: Vec<u8>,
        /// END_STREAM.
        end: bool,
    },
    /// RST_STREAM: stream and code.
    Reset(u32, u32),
    /// GOAWAY: last stream and code.
    Goaway(u32, u32),
    /// PING that wants an answer.
    Ping(Vec<u8>),
    /// An acknowledgement of a PING.
    Pong(Vec<u8>),
    /// WINDOW_UPDATE: stream and increment.
    Window(u32, u32),
    /// A frame of another type, by its number.
    Other(u8),
    /// What no server may send.
    Wrong(String),
}

#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    ended: bool,
    hold: bool,
}

type Shared = Arc<(Mutex<Seen>, Condvar)>;

/// A client in the middle of its script.
pub struct Client {
    stream: TcpStream,
    shared: Shared,
    streams: Streams,
    /// Something was sent: acknowledgements may follow.
    begun: bool,
    answered: usize,
    /// What was waited for in vain.
    pub vain: Vec<String>,
    /// Closed by ourselves.
    left: bool,
}

impl Client {
    /// A client of a new connection that has sent nothing.
    pub fn over(stream: TcpStream) -> Self {
        Self::reading(stream, Reader::default())
    }

    /// The server's side of a new connection, played by the same steps. The first frames go out
    /// before anything is read, so that no acknowledgement goes before them.
    pub fn serving(mut stream: TcpStream, first: &str) -> Self {
        let _ = stream.write_all(&script::write(first, &mut Streams::default()));
        let reader = Reader {
            preface: true,
            ..Reader::default()
        };
        let mut server = Self::reading(stream, reader);
        server.begun = true;
        server
    }

    fn reading(stream: TcpStream, reader: Reader) -> Self {
        let shared = Shared::default();
        let (input, own) = (stream.try_clone().unwrap(), shared.clone());
        std::thread::spawn(move || read(input, &own, reader));
        stream.set_write_timeout(Some(LONGEST)).unwrap();
        Self {
            stream,
            shared,
            streams: Streams::default(),
            begun: false,
            answered: 0,
            vain: Vec::new(),
            left: false,
        }
    }

    /// Plays steps. Unless they begin with `preface` or `raw` the preface and
    /// empty SETTINGS go first, and the server's are waited for.
    pub fn play(&mut self, steps: &[Step]) {
        let own = |text: &String| text.starts_with("preface") || text.starts_with("raw");
        if !matches!(steps.first(), Some(Step::Send(_, text)) if own(text)) {
            self.send("preface & settings");
            self.order(&Order::Acks(1));
        }
        self.steps(steps);
    }

    /// Plays steps and nothing before them; false when they closed the connection.
    pub fn steps(&mut self, steps: &[Step]) -> bool {
        for step in steps {
            match step {
                Step::Send(count, text) => (0..*count).for_each(|_| self.send(text)),
                Step::Order(order) => self.order(order),
            }
            if self.left {
                break;
            }
        }
        !self.left
    }

    /// Sends frames in one write. That the server has closed shows elsewhere.
    pub fn send(&mut self, text: &str) {
        self.answer();
        let bytes = script::write(text, &mut self.streams);
        self.begun = true;
        let _ = self.stream.write_all(&bytes);
    }

    /// Waits until every stream has ended, unless told otherwise, then sees by a
    /// PING whether the connection lives: `open`, `closed`, or `deaf`.
    pub fn finish(&mut self, streams: bool, probe: bool) -> &'static str {
        if self.left {
            return "left";
        }
        if streams {
            self.order(&Order::All);
        }
        if probe && !self.ended() {
            self.send("ping | lifesign");
            let life = Event::Pong(b"lifesign".to_vec());
            if !self.wait(LONGEST, |seen| seen.events.contains(&life)) && !self.ended() {
                return "deaf";
            }
        } else if !probe {
            self.wait(Duration::from_millis(300), |_| false);
        }
        if self.ended() { "closed" } else { "open" }
    }

    /// What has come so far.
    pub fn events(&self) -> Vec<Event> {
        self.seen().events.clone()
    }

    /// The streams that were opened, in their order.
    pub fn opened(&self) -> &[u32] {
        &self.streams.opened
    }

    /// Whether the server has ended the connection.
    pub fn ended(&self) -> bool {
        self.seen().ended
    }

    /// Waits until something is so; false when the time is over or the
    /// connection has ended before.
    pub fn until(&mut self, done: impl Fn(&[Event]) -> bool) -> bool {
        self.wait(LONGEST, |seen| done(&seen.events))
    }

    /// Waits until something is so or the connection has ended, however long that takes.
    pub fn until_ended(&mut self, done: impl Fn(&[Event]) -> bool) -> bool {
        loop {
            if self.until(&done) {
                return true;
            }
            if self.ended() {
                return false;
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.0.lock().unwrap()
    }

    fn order(&mut self, order: &Order) {
        self.seen().hold = *order == Order::Unread;
        self.shared.1.notify_all();
        let has = |wanted: fn(&Event) -> bool| move |seen: &Seen| seen.events.iter().any(wanted);
        let came = match order {
            Order::Wait(time) => {
                self.wait(*time, |_| false);
                true
            }
            Order::Head(stream) => self.wait(LONGEST, |seen| headed(&seen.events, *stream)),
            Order::Done(stream) => self.wait(LONGEST, |seen| done(&seen.events, *stream)),
            Order::All => {
                let all = self.streams.opened.clone();
                self.wait(LONGEST, |seen| all.iter().all(|s| done(&seen.events, *s)))
            }
            Order::Bytes(count) => self.wait(LONGEST, |seen| data(&seen.events) >= *count),
            Order::Acks(count) => self.wait(LONGEST, |seen| {
                let acks = seen.events.iter().filter(|e| **e == Event::SettingsAck);
                acks.count() >= *count
            }),
            Order::Pong => self.wait(LONGEST, has(|e| matches!(e, Event::Pong(_)))),
            Order::Goaway => self.wait(LONGEST, has(|e| matches!(e, Event::Goaway(..)))),
            Order::Gone => self.wait(LONGEST, |seen| seen.ended),
            Order::Unread => true,
            Order::Shut => self.stream.shutdown(Shutdown::Write).is_ok() || self.ended(),
            Order::Close | Order::Reset => {
                if *order == Order::Reset {
                    let socket = socket2::SockRef::from(&self.stream);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                }
                let _ = self.stream.shutdown(Shutdown::Both);
                self.left = true;
                true
            }
        };
        if !came && !self.ended() {
            self.vain.push(format!("waited in vain: {order:?}"));
        }
    }

    fn wait(&mut self, time: Duration, done: impl Fn(&Seen) -> bool) -> bool {
        let until = Instant::now() + time;
        loop {
            self.answer();
            let seen = self.shared.0.lock().unwrap();
            if done(&seen) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if seen.ended || left.is_zero() {
                return false;
            }
            if seen.events.len() == self.answered {
                drop(self.shared.1.wait_timeout(seen, left).unwrap());
            }
        }
    }

    /// Acknowledges the SETTINGS and PINGs that have come. Nothing goes before the preface: a
    /// server may speak first.
    fn answer(&mut self) {
        if !self.begun {
            return;
        }
        let new = {
            let seen = self.shared.0.lock().unwrap();
            seen.events[self.answered..].to_vec()
        };
        self.answered += new.len();
        for event in new {
            let frame = match event {
                Event::Settings(_) => b"\0\0\0\x04\x01\0\0\0\0".to_vec(),
                Event::Ping(bytes) => [b"\0\0\x08\x06\x01\0\0\0\0", &bytes[..]].concat(),
                _ => continue,
            };
            let _ = self.stream.write_all(&frame);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The reader holds the connection too.
        self.seen().hold = false;
        self.shared.1.notify_all();
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn data(events: &[Event]) -> usize {
    let sizes = events.iter().map(|event| match event {
        Event::Data { bytes, .. } => bytes.len(),
        _ => 0,
    });
    sizes.sum()
}

fn headed(events: &[Event], wanted: u32) -> bool {
    let is = |event: &Event| matches!(event, Event::Headers { stream, .. } if *stream == wanted);
    events.iter().any(is) || done(events, wanted)
}

fn done(events: &[Event], wanted: u32) -> bool {
    events.iter().any(|event| match event {
        Event::Headers { stream, end, .. } | Event::Data { stream, end, .. } => {
            *stream == wanted && *end
        }
        Event::Reset(stream, _) => *stream == wanted,
        _ => false,
    })
}

/// What a server's frames are put together in.
#[derive(Default)]
struct Reader {
    bytes: Vec<u8>,
    decoder: Decoder,
    /// A client's preface must come first.
    preface: bool,
    /// A header block that is not whole: its stream, END_STREAM, bytes.
    block: Option<(u32, bool, Vec<u8>)>,
}

fn read(mut stream: TcpStream, shared: &Shared, mut reader: Reader) {
    let mut chunk = vec![0; 65536];
    loop {
        let mut seen = shared.0.lock().unwrap();
        while seen.hold {
            seen = shared.1.wait(seen).unwrap();
        }
        drop(seen);
        let count = stream.read(&mut chunk).unwrap_or(0);
        reader.bytes.extend_from_slice(&chunk[..count]);
        let mut new = Vec::new();
        while let Some(event) = reader.next() {
            new.extend(event);
        }
        let mut seen = shared.0.lock().unwrap();
        seen.events.append(&mut new);
        seen.ended = count == 0;
        shared.1.notify_all();
        if count == 0 {
            return;
        }
    }
}

impl Reader {
    /// The next frame: nothing when it is not whole, an empty answer when it
    /// makes no event yet.
    fn next(&mut self) -> Option<Option<Event>> {
        if self.preface {
            let came = self.bytes.get(..script::PREFACE.len())?;
            let right = came == script::PREFACE;
            self.bytes.drain(..script::PREFACE.len());
            self.preface = false;
            return Some((!right).then(|| Event::Wrong("preface".to_owned())));
        }
        let head: [u8; 9] = self.bytes.get(..9)?.try_into().unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.bytes.get(9..9 + length)?.to_vec();
        self.bytes.drain(..9 + length);
        let stream = word(&head[5..]) & 0x7fff_ffff;
        Some(self.event(head[3], head[4], stream, payload))
    }

    fn event(&mut self, kind: u8, flags: u8, stream: u32, payload: Vec<u8>) -> Option<Event> {
        let end = flags & 1 != 0;
        if self.block.is_some() && kind != 9 {
            return Some(Event::Wrong(format!("frame {kind} inside a header block")));
        }
        Some(match (kind, payload.len()) {
            (0, _) => match plain(flags, payload) {
                Some(bytes) => Event::Data { stream, bytes, end },
                None => Event::Wrong("padding".to_owned()),
            },
            (1, _) => {
                let skip = if flags & 0x20 != 0 { 5 } else { 0 };
                let Some(block) = plain(flags, payload).filter(|b| b.len() >= skip) else {
                    return Some(Event::Wrong("padding".to_owned()));
                };
                self.block = Some((stream, end, block[skip..].to_vec()));
                return self.block_end(flags);
            }
            (9, _) => {
                match &mut self.block {
                    Some((own, _, block)) if *own == stream => block.extend(payload),
                    _ => return Some(Event::Wrong("stray CONTINUATION".to_owned())),
                }
                return self.block_end(flags);
            }
            (2, 5) => Event::Other(2),
            (3, 4) => Event::Reset(stream, word(&payload)),
            (4, 0) if end => Event::SettingsAck,
            (4, length) if length % 6 == 0 && !end => {
                let all = payload.chunks(6);
                let all = all.map(|s| (u16::from_be_bytes([s[0], s[1]]), word(&s[2..])));
                Event::Settings(all.collect())
            }
            (6, 8) if end => Event::Pong(payload),
            (6, 8) => Event::Ping(payload),
            (7, 8..) => Event::Goaway(word(&payload) & 0x7fff_ffff, word(&payload[4..])),
            (8, 4) => Event::Window(stream, word(&payload)),
            (2..=8, length) => Event::Wrong(format!("frame {kind} of {length} bytes")),
            (kind, _) => Event::Other(kind),
        })
    }

    fn block_end(&mut self, flags: u8) -> Option<Event> {
        if flags & 4 == 0 {
            return None;
        }
        let (stream, end, block) = self.block.take()?;
        Some(match self.decoder.decode(&block) {
            Ok(fields) => Event::Headers {
                stream,
                fields,
                end,
            },
            Err(error) => Event::Wrong(format!("header block: {error}")),
        })
    }
}

/// A payload without its padding.
fn plain(flags: u8, mut payload: Vec<u8>) -> Option<Vec<u8>> {
    if flags & 8 == 0 {
        return Some(payload);
    }
    let padding = usize::from(*payload.first()?);
    let left = (payload.len() - 1).checked_sub(padding)?;
    payload.drain(..1);
    payload.truncate(left);
    Some(payload)
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}
