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
        "x-envoy-upstream-service-time" if number(value).is_some() => "<ms>".to_owned(),
        "x-envoy-expected-rq-timeout-ms" => match number(value) {
            // What is left of the timeout: milliseconds were lost before.
            Some(left) => format!("<about {} ms>", left.div_ceil(200) * 200),
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

fn shape(value: &str) -> String {
    let ids = |word: &str| match uuid(word) {
        true => "<uuid>".to_owned(),
        false => word.to_owned(),
    };
    let words: Vec<String> = value.split(['"', '\\']).map(ids).collect();
    let mut out = String::new();
    for c in words.join("'").chars() {
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
