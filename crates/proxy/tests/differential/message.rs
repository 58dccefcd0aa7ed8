//! HTTP/1 messages taken from raw bytes, without judging them, as record lines.

/// Where the body of a message ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilEnd,
}

/// A message found at the start of some bytes.
pub struct Found {
    /// Bytes it takes.
    pub length: usize,
    /// Record lines.
    pub lines: Vec<String>,
    /// A final answer (or a request), not an interim one.
    pub last: bool,
    /// What follows is a tunnel.
    pub tunnel: bool,
}

/// Where the head ends, behind its empty line.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    Some(at + 4)
}

/// An answer; `method` is that of its request; `ended`: no more bytes will come.
pub fn answer(bytes: &[u8], method: &str, ended: bool) -> Option<Found> {
    let Some(end) = head_end(bytes) else {
        return (ended && !bytes.is_empty()).then(|| broken(bytes));
    };
    let head = shown(&bytes[..end - 4]);
    let status: u16 = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let tunnel = status == 101 || (method == "CONNECT" && (200..300).contains(&status));
    let interim = (100..200).contains(&status) && !tunnel;
    let framing = match status {
        _ if tunnel || interim => Framing::None,
        204 | 304 => Framing::None,
        _ if method == "HEAD" => Framing::None,
        _ => framing(&head, Framing::UntilEnd),
    };
    let (length, mut lines) = body(bytes, end, framing, ended)?;
    let mut all: Vec<String> = head.split("\\r\\n").map(str::to_owned).collect();
    all.append(&mut lines);
    Some(Found {
        length,
        lines: all,
        last: !interim,
        tunnel,
    })
}

/// A request.
pub fn request(bytes: &[u8], ended: bool) -> Option<Found> {
    let Some(end) = head_end(bytes) else {
        return (ended && !bytes.is_empty()).then(|| broken(bytes));
    };
    let head = shown(&bytes[..end - 4]);
    let framing = framing(&head, Framing::None);
    let (length, mut lines) = body(bytes, end, framing, ended)?;
    let mut all: Vec<String> = head.split("\\r\\n").map(str::to_owned).collect();
    all.append(&mut lines);
    Some(Found {
        length,
        lines: all,
        last: true,
        tunnel: false,
    })
}

fn broken(bytes: &[u8]) -> Found {
    Found {
        length: bytes.len(),
        lines: vec![format!("broken head: {}", shown(bytes))],
        last: true,
        tunnel: false,
    }
}

/// Bytes as one line of visible text.
pub fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    let text = text.replace("\\'", "'").replace("\\\"", "\"");
    if text.len() <= 600 {
        return text;
    }
    let sum = bytes.iter().fold(0u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(*byte))
    });
    match head_end(bytes) {
        // Heads are looked at line by line.
        Some(_) => text,
        None if bytes.contains(&b'\n') => text,
        None => format!("{}… {} bytes, sum {sum:08x}", &text[..60], bytes.len()),
    }
}

fn framing(head: &str, otherwise: Framing) -> Framing {
    let lower = head.to_ascii_lowercase();
    let value = |name: &str| {
        lower.split("\\r\\n").find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            Some(value.trim().to_owned())
        })
    };
    if value("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        return Framing::Chunked;
    }
    match value("content-length").and_then(|v| v.parse().ok()) {
        Some(length) => Framing::Length(length),
        None => otherwise,
    }
}

fn body(bytes: &[u8], from: usize, framing: Framing, ended: bool) -> Option<(usize, Vec<String>)> {
    let rest = &bytes[from..];
    match framing {
        Framing::None => Some((from, Vec::new())),
        Framing::Length(length) if rest.len() >= length => {
            Some((from + length, text(&rest[..length], "body")))
        }
        Framing::Length(_) if ended => Some((bytes.len(), text(rest, "body, incomplete"))),
        Framing::UntilEnd if ended => Some((bytes.len(), text(rest, "body until the end"))),
        Framing::Chunked => chunked(bytes, from, ended),
        _ => None,
    }
}

fn text(body: &[u8], what: &str) -> Vec<String> {
    vec![format!("{what} ({}): {}", body.len(), shown(body))]
}

/// Joins the chunks: where they were cut is not compared.
fn chunked(bytes: &[u8], from: usize, ended: bool) -> Option<(usize, Vec<String>)> {
    let mut at = from;
    let mut body = Vec::new();
    let incomplete = |body: &[u8]| ended.then(|| (bytes.len(), text(body, "chunks, incomplete")));
    loop {
        let Some(line) = line(&bytes[at..]) else {
            return incomplete(&body);
        };
        let size = std::str::from_utf8(line).ok();
        let size = size.and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
        let Some(size) = size else {
            return Some((
                bytes.len(),
                vec![format!("bad chunk: {}", shown(&bytes[at..]))],
            ));
        };
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        if bytes.len() < at + size + 2 {
            body.extend_from_slice(&bytes[at..bytes.len().min(at + size)]);
            return incomplete(&body);
        }
        body.extend_from_slice(&bytes[at..at + size]);
        at += size + 2;
    }
    let mut lines = text(&body, "chunks");
    loop {
        let Some(line) = line(&bytes[at..]) else {
            return incomplete(&body);
        };
        at += line.len() + 2;
        if line.is_empty() {
            return Some((at, lines));
        }
        lines.push(format!("trailer {}", shown(line)));
    }
}

fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|w| w == b"\r\n")?;
    Some(&bytes[..end])
}
