//! A client of a case's `frames`: plays them and tells what came, stream by stream.

use std::net::TcpStream;

use super::expand::Instance;
use super::message::shown;
use crate::frames::client::{Client, Event};
use crate::frames::script;

/// Plays the case's frames; record lines.
pub fn play(case: &Instance, stream: TcpStream) -> Vec<String> {
    let mut client = Client::over(stream);
    client.play(&case.frames);
    let (streams, probe) = (case.case.answers != Some(0), case.case.probe != Some(false));
    let end = client.finish(streams, probe);
    let events = client.events();
    let mut lines = of_streams(&events, client.opened());
    let shows = |what: &str| case.case.show.iter().any(|s| s == what);
    let silent = case.case.skip.iter().any(|s| s == "goaway");
    let told = events
        .iter()
        .filter(|event| !silent || !matches!(event, Event::Goaway(..)));
    lines.extend(told.filter_map(|event| of_connection(event, &shows)));
    lines.append(&mut client.vain);
    lines.push(end.to_owned());
    lines
}

/// Plays an upstream of a case's `serves` on one connection: its script, then the usual answer to
/// every stream that opens later. Record lines.
pub fn serve(connection: usize, steps: &[script::Step], stream: TcpStream) -> Vec<String> {
    let own = |text: &str| text.starts_with("raw") || text.starts_with("settings");
    let (first, steps) = match steps.split_first() {
        Some((script::Step::Send(1, text), rest)) if own(text) => (text.as_str(), rest),
        _ => ("settings", steps),
    };
    let mut server = Client::serving(stream, first);
    // What the last frames say may bring the next stream before their write is over: it is none of
    // the script's.
    let last = usize::from(matches!(steps.last(), Some(script::Step::Send(..))));
    let (first, last) = steps.split_at(steps.len() - last);
    let mut stays = server.steps(first);
    // Without a script every stream gets the usual answer.
    let mut known = match steps.is_empty() {
        true => 0,
        false => streams(&server.events()).len(),
    };
    stays = stays && server.steps(last);
    while stays && !server.ended() {
        let came = server.until_ended(|events| streams(events).len() > known);
        let all = streams(&server.events());
        for stream in all.iter().skip(known).filter(|_| came) {
            server.send(&format!(
                "headers {stream} | :status: 200 & data {stream} es | later"
            ));
        }
        known = all.len();
    }
    let events = server.events();
    let mut lines = vec![format!("connection {connection}")];
    lines.extend(of_streams(&events, &streams(&events)));
    lines.extend(events.iter().filter_map(|e| of_connection(e, &|_| false)));
    // How a proxy says that it leaves, and with which code it gives a stream up, is its own affair.
    lines.retain(|line| line != "goaway NO_ERROR");
    for line in lines.iter_mut().filter(|l| l.starts_with("  reset ")) {
        "  reset".clone_into(line);
    }
    lines.append(&mut server.vain);
    lines
}

/// The streams that the peer opened, in their order.
fn streams(events: &[Event]) -> Vec<u32> {
    let mut all = Vec::new();
    for event in events {
        if let Event::Headers { stream, .. } = event
            && !all.contains(stream)
        {
            all.push(*stream);
        }
    }
    all
}

fn of_streams(events: &[Event], streams: &[u32]) -> Vec<String> {
    let mut lines = Vec::new();
    for stream in streams {
        let own = of_stream(events, *stream);
        if !own.is_empty() {
            lines.push(format!("stream {stream}"));
            lines.extend(own);
        }
    }
    lines
}

fn of_stream(events: &[Event], wanted: u32) -> Vec<String> {
    let (mut lines, mut body) = (Vec::new(), Vec::new());
    let ended = |end: &bool| end.then(|| "  end".to_owned());
    for event in events {
        match event {
            Event::Headers {
                stream,
                fields,
                end,
            } if *stream == wanted => {
                flush(&mut body, &mut lines);
                let answer = fields
                    .first()
                    .is_some_and(|(name, _)| name.starts_with(b":"));
                let mark = if answer { "" } else { "trailer " };
                let mut fields = fields.clone();
                // The order of pseudo fields has no meaning (RFC 9113 section 8.3).
                fields.sort_by_key(|(name, _)| match name.first() {
                    Some(b':') => (0, name.clone()),
                    _ => (1, Vec::new()),
                });
                let shown = fields
                    .iter()
                    .map(|(name, value)| format!("  {mark}{}: {}", shown(name), shown(value)));
                lines.extend(shown);
                lines.extend(ended(end));
            }
            Event::Data { stream, bytes, end } if *stream == wanted => {
                body.extend_from_slice(bytes);
                if *end {
                    flush(&mut body, &mut lines);
                    lines.extend(ended(end));
                }
            }
            Event::Reset(stream, code) if *stream == wanted => {
                flush(&mut body, &mut lines);
                lines.push(format!("  reset {}", script::error(*code)));
            }
            _ => {}
        }
    }
    flush(&mut body, &mut lines);
    lines
}

fn flush(body: &mut Vec<u8>, lines: &mut Vec<String>) {
    if !body.is_empty() {
        lines.push(format!("  data ({}): {}", body.len(), shown(body)));
        body.clear();
    }
}

fn of_connection(event: &Event, shows: &impl Fn(&str) -> bool) -> Option<String> {
    Some(match event {
        Event::Goaway(last, code) if shows("last") => {
            format!("goaway {} last={last}", script::error(*code))
        }
        Event::Goaway(_, code) => format!("goaway {}", script::error(*code)),
        Event::Settings(all) if shows("settings") => {
            let mut all: Vec<String> = all
                .iter()
                .map(|(id, value)| format!("{}={value}", script::setting(*id)))
                .collect();
            all.sort();
            format!("settings {}", all.join(" "))
        }
        Event::Window(stream, count) if shows("windows") => format!("window {stream} {count}"),
        Event::Wrong(what) => format!("WRONG {what}"),
        _ => return None,
    })
}
