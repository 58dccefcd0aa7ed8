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
        return Step::Bytes(crate::frames::script::bytes(text));
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
