//! Scripts of clients and upstreams: bytes, and orders that begin with `!`.

use std::time::Duration;

/// One step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes to send.
    Bytes(Vec<u8>),
    /// `!wait N`: N milliseconds.
    Wait(Duration),
    /// `!answers N` (client): until N answers have come in all.
    Answers(usize),
    /// `!tunnel N` (client): until N bytes of a tunnel have come in all.
    Tunnel(usize),
    /// `!shut`: ends the own direction.
    Shut,
    /// `!close`: ends the connection (client: at once, without a probe).
    Close,
    /// `!reset`: ends it with a reset.
    Reset,
    /// `!silent` (upstream): never answers.
    Silent,
    /// `!early` (upstream): answers before the request's body has come.
    Early,
    /// `!raw N` (upstream): reads N more bytes and keeps them for the record.
    Raw(usize),
}

/// Reads steps.
pub fn steps(texts: &[String]) -> Vec<Step> {
    texts.iter().map(|text| step(text)).collect()
}

fn step(text: &str) -> Step {
    let Some(order) = text.strip_prefix('!') else {
        return Step::Bytes(bytes(text));
    };
    let (word, count) = order.split_once(' ').unwrap_or((order, "0"));
    let count: usize = count.parse().unwrap_or_else(|_| panic!("order {text:?}"));
    match word {
        "wait" => Step::Wait(Duration::from_millis(count as u64)),
        "answers" => Step::Answers(count),
        "tunnel" => Step::Tunnel(count),
        "shut" => Step::Shut,
        "close" => Step::Close,
        "reset" => Step::Reset,
        "silent" => Step::Silent,
        "early" => Step::Early,
        "raw" => Step::Raw(count),
        _ => panic!("unknown order {text:?}"),
    }
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
