//! Which reactions are right.
//!
//! | `allow` | what came |
//! |---|---|
//! | `connection CODE` | GOAWAY with the code, or the connection closed (RFC 9113 section 5.4.1 lets GOAWAY be left out) |
//! | `stream CODE` | the newest stream reset with the code, or, as section 5.4.2 allows, what `connection CODE` says |
//! | `goaway CODE` | GOAWAY with the code, and then the end |
//! | `close` | the connection closed |
//! | `status N` | the newest stream answered with that status |
//! | `answer` | the newest stream answered with 200, the connection alive |
//! | `alive` | PING answered, no GOAWAY, no stream reset |
//! | `data N` | so many bytes of DATA in all and no more, the connection alive |
//! | `settings`, `ack N`, `pong HEX` | SETTINGS first; N acknowledgements of SETTINGS; that PING acknowledged |

use std::time::Duration;

use super::case::Case;
use crate::frames::client::{Client, Event};
use crate::frames::script;

/// What may still come when the connection has shown that it lives: streams
/// are served apart from it.
const LATE: Duration = Duration::from_secs(5);
/// The same for a case that is known to fail.
const KNOWN: Duration = Duration::from_millis(700);
/// How long nothing wrong may come where nothing is to come.
const QUIET: Duration = Duration::from_millis(200);

/// What a case came to.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// As the section says.
    Right,
    /// The connection ended as it must, but GOAWAY said another code.
    OtherCode(String),
    /// What came in place of a right reaction.
    Wrong(String),
}

/// Waits for a right reaction.
pub fn judge(case: &Case, client: &mut Client) -> Verdict {
    let newest = client.opened().last().copied();
    let stream = case.stream.or(newest).unwrap_or(0);
    let needs_life = |word: &String| {
        let word = word.split(' ').next().unwrap_or_default();
        ["answer", "alive", "data", "ack", "pong", "settings"].contains(&word)
    };
    let now = |client: &Client, alive: bool| {
        let (events, ended) = (client.events(), client.ended());
        let mut words = case.allow.iter();
        words.any(|word| (alive || !needs_life(word)) && holds(word, stream, &events, ended))
    };
    if case.allow.iter().any(|word| word == "answer") {
        client.until(|events| over(events, stream));
    }
    let mut alive = false;
    if case.probe && !client.ended() && !now(client, false) {
        alive = client.finish(false, true) == "open";
    }
    let quiet = |word: &String| word == "alive" || word.starts_with("data");
    if case.allow.iter().any(quiet) {
        std::thread::sleep(QUIET);
    }
    let late = if case.fails.is_some() { KNOWN } else { LATE };
    let until = std::time::Instant::now() + late;
    while !now(client, alive) && !client.ended() && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    if !now(client, alive) {
        return Verdict::Wrong(told(case, client));
    }
    match other_code(case, &client.events()) {
        true => Verdict::OtherCode(told(case, client)),
        false => Verdict::Right,
    }
}

/// Whether GOAWAY names an error that the section does not.
fn other_code(case: &Case, events: &[Event]) -> bool {
    let named = |code: u32| {
        let code = script::error(code);
        case.allow.iter().any(|word| word.ends_with(&code))
    };
    let mut codes = events.iter().filter_map(|event| match event {
        Event::Goaway(_, code) if *code != 0 => Some(*code),
        _ => None,
    });
    codes.any(|code| !named(code))
}

fn holds(word: &str, stream: u32, events: &[Event], ended: bool) -> bool {
    let (word, rest) = word.split_once(' ').unwrap_or((word, ""));
    let goaway = |code: &str| {
        let is = |event: &Event| matches!(event, Event::Goaway(_, c) if script::error(*c) == code);
        events.iter().any(is)
    };
    let reset = |code: &str| {
        let is = |event: &Event| matches!(event, Event::Reset(s, c) if *s == stream && script::error(*c) == code);
        events.iter().any(is)
    };
    let broken = events
        .iter()
        .any(|e| matches!(e, Event::Goaway(..) | Event::Reset(..) | Event::Wrong(_)));
    match word {
        "connection" => goaway(rest) || ended,
        "stream" => reset(rest) || goaway(rest) || ended,
        "goaway" => goaway(rest) && ended,
        "close" => ended,
        "status" => status(events, stream).as_deref() == Some(rest.as_bytes()),
        "answer" => {
            status(events, stream).as_deref() == Some(b"200") && over(events, stream) && !broken
        }
        "alive" => !broken && !ended,
        "data" => {
            let all: usize = events.iter().map(length).sum();
            !broken && all.to_string() == rest
        }
        "ack" => {
            let acks = events.iter().filter(|e| **e == Event::SettingsAck);
            acks.count().to_string() == rest
        }
        "pong" => events.contains(&Event::Pong(script::hex(rest))),
        "settings" => matches!(events.first(), Some(Event::Settings(_))),
        _ => panic!("unknown reaction {word:?}"),
    }
}

fn length(event: &Event) -> usize {
    match event {
        Event::Data { bytes, .. } => bytes.len(),
        _ => 0,
    }
}

fn status(events: &[Event], wanted: u32) -> Option<Vec<u8>> {
    let found = events.iter().find_map(|event| match event {
        Event::Headers { stream, fields, .. } if *stream == wanted => fields.first(),
        _ => None,
    });
    found.map(|(_, value)| value.clone())
}

fn over(events: &[Event], wanted: u32) -> bool {
    events.iter().any(|event| match event {
        Event::Headers { stream, end, .. } | Event::Data { stream, end, .. } => {
            *stream == wanted && *end
        }
        Event::Reset(stream, _) => *stream == wanted,
        _ => false,
    })
}

fn told(case: &Case, client: &Client) -> String {
    let shown = client.events().into_iter().filter_map(|event| {
        Some(match event {
            Event::Headers { stream, fields, .. } => {
                let value = fields.first().map(|(_, value)| value.clone());
                let value = value.unwrap_or_default();
                format!("answer {} on {stream}", String::from_utf8_lossy(&value))
            }
            Event::Data { stream, bytes, .. } => format!("{} bytes on {stream}", bytes.len()),
            Event::Reset(stream, code) => format!("reset {} on {stream}", script::error(code)),
            Event::Goaway(_, code) => format!("goaway {}", script::error(code)),
            Event::Wrong(what) => what,
            Event::Pong(_) => "pong".to_owned(),
            _ => return None,
        })
    });
    let mut all: Vec<String> = shown.collect();
    all.extend(client.ended().then(|| "closed".to_owned()));
    format!(
        "wanted {}, came {}",
        case.allow.join(" or "),
        all.join(", ")
    )
}
