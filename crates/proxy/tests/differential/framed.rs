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
    let mut lines = Vec::new();
    for stream in client.opened() {
        let own = of_stream(&events, *stream);
        if !own.is_empty() {
            lines.push(format!("stream {stream}"));
            lines.extend(own);
        }
    }
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
                let answer = fields.first().is_some_and(|(name, _)| name == b":status");
                let mark = if answer { "" } else { "trailer " };
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
