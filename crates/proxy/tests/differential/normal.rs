//! What time, chance and place put into a record is made equal on both sides.

use super::bootstrap::{self, Networks};
use super::expand::Instance;

/// Makes a record line comparable.
pub fn line(text: &str, case: &Instance, networks: Networks) -> String {
    let mut text = text.to_owned();
    for network in [networks.envoy, networks.ours] {
        text = text.replace(&format!("127.{network}."), "127.L.");
    }
    text = text.replace(&format!("127.{}.", networks.upstream), "127.U.");
    let client = bootstrap::client(networks.client, case.index).ip();
    text = text.replace(&client.to_string(), "127.client");
    for cluster in case.clusters() {
        text = text.replace(&case.cluster(&cluster), &cluster);
    }
    if let Some(log) = text.strip_prefix("log ") {
        return format!("log {}", shapes(log));
    }
    let Some((name, value)) = text.split_once(": ") else {
        return text;
    };
    let value = match name.trim().to_ascii_lowercase().as_str() {
        "date" if value.ends_with(" GMT") => "<date>".to_owned(),
        "x-request-id" if uuid(value) => format!("<uuid {}>", &value[14..15]),
        "x-b3-traceid" | "x-b3-spanid" | "x-b3-parentspanid" | "b3" | "traceparent" => {
            let parts: Vec<String> = value.split('-').map(trace_id).collect();
            parts.join("-")
        }
        "x-envoy-upstream-service-time" if number(value).is_some() => "<ms>".to_owned(),
        "x-ratelimit-reset" => match number(value) {
            Some(left) => format!("<about {} s>", left.div_ceil(10) * 10),
            None => value.to_owned(),
        },
        "x-envoy-expected-rq-timeout-ms" => match number(value) {
            // What is left of the timeout: milliseconds were lost before.
            // A busy machine loses more of a long one.
            Some(left) => {
                let step = if left > 2000 { 1000 } else { 200 };
                format!("<about {} ms>", left.div_ceil(step) * step)
            }
            None => value.to_owned(),
        },
        _ => return text,
    };
    format!("{name}: {value}")
}

/// What follows `~` in a log line, up to its word's or JSON value's end, is
/// shown by its shape: runs of digits become `N`, ids `<uuid>`.
fn shapes(line: &str) -> String {
    let mut parts = line.split('~');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let json = part.starts_with("\\\":");
        let end = match json {
            true => part.find(",\\\"").or(part.rfind('}')),
            false => part.find(' '),
        };
        let (value, rest) = part.split_at(end.unwrap_or(part.len()));
        out.push('~');
        out.push_str(&shape(value));
        out.push_str(rest);
    }
    out
}

/// An id of a trace that no case chose; those of cases begin with `fee1`.
fn trace_id(word: &str) -> String {
    let hex = word.bytes().all(|b| b.is_ascii_hexdigit());
    match word.len() {
        len @ (16 | 32) if hex && !word.starts_with("fee1") => format!("<id {len}>"),
        _ => word.to_owned(),
    }
}

fn shape(value: &str) -> String {
    let ids = |word: &str| match uuid(word) {
        true => "<uuid>".to_owned(),
        false => trace_id(word),
    };
    let words: Vec<String> = value.split(['"', '\\']).map(ids).collect();
    let mut out = String::new();
    for c in words.join("'").chars() {
        if out.starts_with('<') || out.starts_with("fee1") {
            out.push(c);
            continue;
        }
        match c.is_ascii_digit() {
            true if out.ends_with('N') => {}
            true => out.push('N'),
            false => out.push(c),
        }
    }
    out
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
