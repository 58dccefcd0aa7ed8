//! The language of scripts. A step is one write to the socket: frames, joined
//! by ` & `. `x20: ` in front repeats it. Parts of a frame are joined by ` | `.
//!
//! | frame | example |
//! |---|---|
//! | `headers STREAM [es] [-eh] [pri=DEP:WEIGHT[:x]]` | `headers 1 es \| get /a \| x-y: z \| hex:82` |
//! | `continuation STREAM [-eh]`, `push STREAM to=STREAM` | fields likewise |
//! | `data STREAM [es]` | `data 1 es \| text` |
//! | `priority STREAM dep=N weight=N [x]`, `rst STREAM CODE` | |
//! | `settings [ack] [NAME=VALUE..]` | `settings window=0 max=5 9=1` |
//! | `ping [ack]`, `goaway LAST CODE`, `window STREAM N` | `ping \| 8 bytes` |
//! | `frame TYPE STREAM` | payload as text or `hex:` |
//! | `preface`, `raw` | the 24 bytes; any bytes |
//!
//! Any frame takes `pad=N` (padding and its flag), `padlen=N` (the pad length
//! alone), `flags=N` (in place of its own), `len=N` (in place of its payload's)
//! and `r` (the reserved bit). `#` is the next stream of the client, `=` the
//! one before. `!` begins an order; see `Order`.

use std::time::Duration;

use super::hpack;

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// So many times the frames of a text, each time one write.
    Send(usize, String),
    /// What is not sent.
    Order(Order),
}

/// What a client does besides sending. Every wait ends with the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `!wait N`: N milliseconds.
    Wait(Duration),
    /// `!head N`: until stream N has an answer's head.
    Head(u32),
    /// `!done N`: until stream N has ended or is reset.
    Done(u32),
    /// `!all`: until every stream has.
    All,
    /// `!bytes N`: until N bytes of DATA have come on all streams.
    Bytes(usize),
    /// `!acks N`: until N SETTINGS were acknowledged, the first ones included.
    Acks(usize),
    /// `!pong`: until a PING was acknowledged.
    Pong,
    /// `!goaway`: until a GOAWAY came.
    Goaway,
    /// `!gone`: until the connection ends.
    Gone,
    /// `!unread`: reads nothing until the next order.
    Unread,
    /// `!shut`: ends the own direction.
    Shut,
    /// `!close`, `!reset`: ends the connection, the latter with a reset.
    Close,
    /// See `Close`.
    Reset,
}

/// Reads steps.
pub fn steps(texts: &[String]) -> Vec<Step> {
    texts.iter().map(|text| step(text)).collect()
}

fn step(text: &str) -> Step {
    let Some(order) = text.strip_prefix('!') else {
        let repeated = text.strip_prefix('x').and_then(|t| t.split_once(": "));
        let repeated = repeated.and_then(|(n, rest)| Some((n.parse().ok()?, rest)));
        let (count, rest) = repeated.unwrap_or((1, text));
        return Step::Send(count, rest.to_owned());
    };
    let (word, count) = order.split_once(' ').unwrap_or((order, "1"));
    let count: u32 = count.parse().unwrap_or_else(|_| panic!("order {text:?}"));
    Step::Order(match word {
        "wait" => Order::Wait(Duration::from_millis(count.into())),
        "head" => Order::Head(count),
        "done" => Order::Done(count),
        "all" => Order::All,
        "bytes" => Order::Bytes(count as usize),
        "acks" => Order::Acks(count as usize),
        "pong" => Order::Pong,
        "goaway" => Order::Goaway,
        "gone" => Order::Gone,
        "unread" => Order::Unread,
        "shut" => Order::Shut,
        "close" => Order::Close,
        "reset" => Order::Reset,
        _ => panic!("unknown order {text:?}"),
    })
}

/// The client's connection preface (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which streams were used.
#[derive(Default)]
pub struct Streams {
    /// The newest stream taken by `#`.
    newest: u32,
    /// Streams with HEADERS sent, in their order.
    pub opened: Vec<u32>,
}

impl Streams {
    fn number(&mut self, text: &str) -> u32 {
        match text {
            "#" => self.newest = if self.newest == 0 { 1 } else { self.newest + 2 },
            "=" => {}
            text => return number(text),
        }
        self.newest
    }
}

/// Bytes of one write.
pub fn write(text: &str, streams: &mut Streams) -> Vec<u8> {
    let frames = text.split(" & ");
    frames.flat_map(|frame| bytes_of(frame, streams)).collect()
}

/// One frame while it is made.
struct Frame<'a> {
    kind: u8,
    flags: u32,
    stream: u32,
    payload: Vec<u8>,
    words: Words<'a>,
}

/// What stands in front of the first ` | `.
struct Words<'a>(Vec<&'a str>);

const ES: u32 = 1;
const EH: u32 = 4;
const PADDED: u32 = 8;
const PRIORITY: u32 = 0x20;

impl<'a> Words<'a> {
    /// The next word, which must be there.
    fn next(&mut self) -> &'a str {
        self.0.remove(0)
    }

    /// Takes a word out, if it is there.
    fn has(&mut self, word: &str) -> bool {
        let at = self.0.iter().position(|w| *w == word);
        at.is_some_and(|at| self.0.remove(at) == word)
    }

    /// Takes `name=value` out.
    fn text(&mut self, name: &str) -> Option<&'a str> {
        let of = |word: &&'a str| word.strip_prefix(name)?.strip_prefix('=');
        let at = self.0.iter().position(|w| of(w).is_some())?;
        of(&self.0.remove(at))
    }

    fn value(&mut self, name: &str) -> Option<u32> {
        self.text(name).map(number)
    }
}

fn bytes_of(text: &str, streams: &mut Streams) -> Vec<u8> {
    let mut parts = text.split(" | ");
    let mut words = Words(
        parts
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect(),
    );
    let parts: Vec<&str> = parts.collect();
    let name = words.next();
    match name {
        "preface" => return PREFACE.to_vec(),
        "raw" => return parts.iter().flat_map(|p| payload(p)).collect(),
        _ => {}
    }
    let mut frame = Frame {
        kind: 0,
        flags: 0,
        stream: 0,
        payload: Vec::new(),
        words,
    };
    frame.fill(name, &parts, streams);
    frame.finish(text)
}

impl Frame<'_> {
    fn fill(&mut self, name: &str, parts: &[&str], streams: &mut Streams) {
        let words = &mut self.words;
        let bytes = || parts.iter().flat_map(|p| payload(p)).collect();
        match name {
            "data" => (self.stream, self.payload) = (streams.number(words.next()), bytes()),
            "headers" | "continuation" => {
                self.kind = if name == "headers" { 1 } else { 9 };
                (self.stream, self.payload) = (streams.number(words.next()), block(parts));
                self.flags = if words.has("-eh") { 0 } else { EH };
                if self.kind == 1 && !streams.opened.contains(&self.stream) {
                    streams.opened.push(self.stream);
                }
                if let Some(text) = words.text("pri") {
                    self.flags |= PRIORITY;
                    let mut fields = text.split(':');
                    let mut field = || fields.next().map_or(0, number);
                    let (on, weight, exclusive) = (field(), field(), text.ends_with(":x"));
                    let mut all = dependency(on, weight, exclusive);
                    all.append(&mut self.payload);
                    self.payload = all;
                }
            }
            "priority" => {
                (self.kind, self.stream) = (2, streams.number(words.next()));
                let (on, weight) = (words.value("dep"), words.value("weight"));
                let exclusive = words.has("x");
                self.payload = dependency(on.unwrap_or(0), weight.unwrap_or(16), exclusive);
            }
            "rst" => {
                (self.kind, self.stream) = (3, streams.number(words.next()));
                self.payload = number(words.next()).to_be_bytes().to_vec();
            }
            "settings" => {
                self.kind = 4;
                self.flags = u32::from(words.has("ack"));
                self.payload = settings(words);
            }
            "push" => {
                (self.kind, self.stream) = (5, streams.number(words.next()));
                self.flags = EH;
                self.payload = words.value("to").unwrap_or(2).to_be_bytes().to_vec();
                self.payload.append(&mut block(parts));
            }
            "ping" => {
                (self.kind, self.flags) = (6, u32::from(words.has("ack")));
                self.payload = payload(parts.first().unwrap_or(&"12345678"));
            }
            "goaway" => {
                self.kind = 7;
                self.payload = number(words.next()).to_be_bytes().to_vec();
                self.payload.extend(number(words.next()).to_be_bytes());
                self.payload.extend::<Vec<u8>>(bytes());
            }
            "window" => {
                (self.kind, self.stream) = (8, streams.number(words.next()));
                self.payload = number(words.next()).to_be_bytes().to_vec();
            }
            "frame" => {
                self.kind = u8::try_from(number(words.next())).unwrap();
                (self.stream, self.payload) = (streams.number(words.next()), bytes());
            }
            _ => panic!("unknown frame {name:?}"),
        }
    }

    /// The frame with its header (RFC 9113 section 4.1).
    fn finish(mut self, text: &str) -> Vec<u8> {
        let words = &mut self.words;
        if words.has("es") {
            self.flags |= ES;
        }
        if let Some(count) = words.value("pad") {
            self.flags |= PADDED;
            self.payload.insert(0, u8::try_from(count).unwrap());
            self.payload.extend(vec![0; count as usize]);
        }
        if let Some(count) = words.value("padlen") {
            self.flags |= PADDED;
            self.payload.insert(0, u8::try_from(count).unwrap());
        }
        if let Some(stream) = words.value("stream") {
            self.stream = stream;
        }
        if words.has("r") {
            self.stream |= 1 << 31;
        }
        let flags = words.value("flags").unwrap_or(self.flags);
        let length = words.value("len").unwrap_or(self.payload.len() as u32);
        assert!(words.0.is_empty(), "{text:?}: what is {:?}?", words.0);
        let mut out = length.to_be_bytes()[1..].to_vec();
        out.extend([self.kind, u8::try_from(flags).unwrap()]);
        out.extend(self.stream.to_be_bytes());
        out.append(&mut self.payload);
        out
    }
}

fn dependency(on: u32, weight: u32, exclusive: bool) -> Vec<u8> {
    let first = on | u32::from(exclusive) << 31;
    let mut out = first.to_be_bytes().to_vec();
    out.push(u8::try_from(weight).unwrap());
    out
}

/// Names of RFC 9113 section 6.5.2 and RFC 8441, or numbers.
const SETTINGS: [(&str, u16); 7] = [
    ("table", 1),
    ("push", 2),
    ("streams", 3),
    ("window", 4),
    ("frame", 5),
    ("list", 6),
    ("connect", 8),
];

/// The name of a setting.
pub fn setting(id: u16) -> String {
    let found = SETTINGS.iter().find(|(_, own)| *own == id);
    found.map_or(id.to_string(), |(name, _)| (*name).to_owned())
}

fn settings(words: &mut Words<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let given = words.0.iter().filter_map(|w| w.split_once('='));
    let given: Vec<(&str, &str)> = given.collect();
    for (name, value) in given {
        let known = SETTINGS.iter().find(|(own, _)| *own == name);
        let id = known.map(|(_, id)| *id).or_else(|| name.parse().ok());
        let Some(id) = id else { continue };
        words.text(name);
        out.extend(id.to_be_bytes());
        out.extend(number(value).to_be_bytes());
    }
    out
}

/// Errors of RFC 9113 section 7, by their codes.
pub const ERRORS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// The name of an error code.
pub fn error(code: u32) -> String {
    let name = ERRORS.get(code as usize);
    name.map_or(format!("error {code}"), |name| (*name).to_owned())
}

fn number(text: &str) -> u32 {
    let code = ERRORS.iter().position(|name| *name == text);
    let hex = text.strip_prefix("0x");
    let hex = hex.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let plain = || text.parse().unwrap_or_else(|_| panic!("number {text:?}"));
    code.map(|at| at as u32).or(hex).unwrap_or_else(plain)
}

/// Bytes of a text: `hex:` and digits, or as `bytes`.
fn payload(text: &str) -> Vec<u8> {
    match text.strip_prefix("hex:") {
        Some(digits) => hex(digits),
        None => bytes(text),
    }
}

/// Bytes written as hexadecimal digits.
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    let pairs = digits.as_bytes().chunks(2);
    let pairs = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

/// Characters up to U+00FF are single bytes, others UTF-8; `{{text*N}}` stands
/// for the text N times.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        latin1(before, &mut out);
        let (inside, after) = after.split_once("}}").expect("}} after {{");
        let (unit, count) = inside.rsplit_once('*').expect("{{text*N}}");
        for _ in 0..count.parse::<usize>().expect("{{text*N}}") {
            latin1(unit, &mut out);
        }
        rest = after;
    }
    latin1(rest, &mut out);
    out
}

fn latin1(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match u8::try_from(u32::from(c)) {
            Ok(byte) => out.push(byte),
            Err(_) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// A header block. A part is `name: value` (or `name => value`), `hex:` with
/// bytes of the block, `N*part` (the part N times, `%` in it is the number),
/// or a method with its path (or authority, for CONNECT).
fn block(parts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        field(part, &mut out);
    }
    out
}

fn field(part: &str, out: &mut Vec<u8>) {
    if let Some(digits) = part.strip_prefix("hex:") {
        out.extend(hex(digits));
        return;
    }
    let repeated = part.split_once('*');
    let repeated = repeated.and_then(|(n, part)| Some((n.parse::<usize>().ok()?, part)));
    if let Some((count, part)) = repeated {
        (0..count).for_each(|n| field(&part.replace('%', &n.to_string()), out));
        return;
    }
    let arrow = part.split_once(" => ");
    let colon = || {
        let skip = usize::from(part.starts_with(':'));
        let (name, value) = part[skip..].split_once(':')?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        Some((&part[..name.len() + skip], value))
    };
    match arrow.or_else(colon) {
        // A path may have a colon, a method's word has none and ends with a space.
        Some((name, value)) if !name.contains(' ') || arrow.is_some() => {
            hpack::literal(&bytes(name), &bytes(value), out);
        }
        _ => request(part, out),
    }
}

fn request(part: &str, out: &mut Vec<u8>) {
    let (method, target) = part.split_once(' ').unwrap_or((part, "/"));
    let method = method.to_ascii_uppercase();
    let mut add = |name: &str, value: &str| {
        hpack::literal(name.as_bytes(), &bytes(value), out);
    };
    add(":method", &method);
    if method == "CONNECT" {
        return add(":authority", target);
    }
    add(":scheme", "http");
    add(":path", target);
    add(":authority", "x");
}
