//! The client side of HTTP/2, as little as a load needs: fixed header blocks without a dynamic
//! table, windows as large as they may be, frames read for their flags.

/// Sent first: the preface, SETTINGS (no push, the largest window a stream may have) and the
/// connection's window raised to the largest (RFC 9113 sections 3.4, 6.5, 6.9).
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x04\x7f\xff\xff\xff\
    \x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\x00\x00";
/// The connection's window is raised again when so much has come.
const REFILL: u32 = 1 << 30;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

/// One connection.
#[derive(Debug)]
pub struct Client {
    block: Vec<u8>,
    next: u32,
    held: Vec<u8>,
    came: u32,
}

impl Client {
    /// A client of this request, and what it sends first.
    pub fn new(authority: &str, path: &str) -> (Self, &'static [u8]) {
        // RFC 7541: indexed `:method: GET` (2) and `:scheme: http` (6); `:path` (4) and
        // `:authority` (1) as literals without indexing.
        let mut block = vec![0x82, 0x86];
        for (index, value) in [(4, path), (1, authority)] {
            block.push(index);
            block.push(u8::try_from(value.len()).unwrap_or(126).min(126));
            block.extend_from_slice(value.as_bytes());
        }
        let client = Self {
            block,
            next: 1,
            held: Vec::new(),
            came: 0,
        };
        (client, OPENING)
    }

    /// Adds a request on a new stream to `out`.
    pub fn ask(&mut self, out: &mut Vec<u8>) {
        frame(out, HEADERS, 0x05, self.next, &self.block);
        self.next += 2;
    }

    /// Takes what came: how many answers became whole. What must be said goes to `out`.
    ///
    /// # Errors
    /// A stream or the connection that is reset.
    pub fn feed(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<usize, String> {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(data);
        let (mut at, mut done) = (0, 0);
        while let Some((kind, flags, stream, payload)) = parse(held.get(at..).unwrap_or_default()) {
            at += 9 + payload.len();
            match kind {
                SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
                RST_STREAM => return Err(format!("stream {stream} was reset")),
                GOAWAY => return Err("the connection was ended".to_owned()),
                // 0x88 is `:status: 200`; nobody writes it otherwise.
                HEADERS if payload.iter().take(6).all(|byte| *byte != 0x88) => {
                    return Err(format!("an answer that is no 200: {payload:?}"));
                }
                _ => {}
            }
            if kind <= HEADERS && flags & END_STREAM != 0 {
                done += 1;
            }
            if kind == 0 {
                self.came += payload.len() as u32;
            }
        }
        if self.came >= REFILL {
            frame(out, 8, 0, 0, &self.came.to_be_bytes());
            self.came = 0;
        }
        held.drain(..at);
        self.held = held;
        Ok(done)
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Kind, flags, stream and payload of the first frame, once it is whole.
fn parse(data: &[u8]) -> Option<(u8, u8, u32, &[u8])> {
    let (head, rest) = data.split_first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], stream, rest.get(..length)?))
}
