//! Admin pages: asked for, and taken apart into keys and values that can be compared.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::scene::Side;

/// Keys with their values.
pub type Keys = BTreeMap<String, String>;

/// An answer of an admin port.
#[derive(Debug)]
pub struct Page {
    /// Status code.
    pub status: u16,
    /// Media type, without its parameters.
    pub kind: String,
    /// Body, ports by their names.
    pub body: String,
}

/// Asks for a page.
pub fn ask(side: &Side, method: &str, target: &str) -> Page {
    let mut stream = TcpStream::connect(side.addresses["admin"]).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let lower = head.to_ascii_lowercase();
    let body = match lower.contains("transfer-encoding: chunked") {
        true => whole(body),
        false => body.to_owned(),
    };
    let kind = lower.lines().find_map(|l| l.strip_prefix("content-type: "));
    let kind = kind
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    Page {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        kind: kind.trim().to_owned(),
        body: side.named(&body),
    }
}

/// Asks for a page that must be there.
pub fn get(side: &Side, target: &str) -> String {
    let page = ask(side, "GET", target);
    assert_eq!(page.status, 200, "{target}: {}", page.body);
    page.body
}

/// A chunked body in one.
fn whole(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        out.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    out
}

/// `/stats` as text: all histograms have the value `histogram`.
pub fn stats(text: &str) -> Keys {
    let line = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        let histogram = value.starts_with("P0(") || value == "No recorded values";
        let value = if histogram { "histogram" } else { value };
        (name.to_owned(), value.to_owned())
    };
    text.lines().map(line).collect()
}

/// `/clusters` as text: what stands behind the last `::` is the value.
pub fn clusters(text: &str) -> Keys {
    let line = |line: &str| {
        let (name, value) = line.rsplit_once("::").unwrap();
        (name.to_owned(), value.to_owned())
    };
    text.lines().map(line).collect()
}

/// JSON: the path to each value; entries of lists go by their names.
pub fn json(text: &str) -> Keys {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let mut out = Keys::new();
    flatten("", &value, &mut out);
    out
}

fn flatten(path: &str, value: &Value, out: &mut Keys) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&format!("{path}/{key}"), value, out);
            }
        }
        Value::Array(all) => {
            for (at, value) in all.iter().enumerate() {
                let by = name_of(value).unwrap_or_else(|| at.to_string());
                flatten(&format!("{path}[{by}]"), value, out);
            }
        }
        Value::String(text) => {
            out.insert(path.to_owned(), text.clone());
        }
        // Whole numbers are written with and without a point.
        Value::Number(n) if n.as_f64().is_some_and(|f| f.fract() == 0.0) => {
            out.insert(path.to_owned(), format!("{:.0}", n.as_f64().unwrap()));
        }
        other => {
            out.insert(path.to_owned(), other.to_string());
        }
    }
}

/// By what an entry of a list is known.
fn name_of(value: &Value) -> Option<String> {
    let text = |path: &str| Some(value.pointer(path)?.as_str()?.to_owned());
    let port = || {
        let port = value.pointer("/address/socket_address/port_value")?;
        Some(format!("port {port}").replace('"', ""))
    };
    let certificate = || {
        let of = |list: &str| text(&format!("/{list}/0/serial_number"));
        Some(format!("{:?} {:?}", of("cert_chain"), of("ca_cert"))).filter(|n| n != "None None")
    };
    text("/name")
        .or_else(|| text("/cluster/name"))
        .or_else(|| text("/listener/name"))
        .or_else(|| text("/route_config/name"))
        .or_else(|| text("/endpoint_config/cluster_name"))
        .or_else(|| text("/secret/name"))
        .or_else(|| text("/@type"))
        .or_else(port)
        .or_else(certificate)
}

/// The Prometheus page: `name{labels}` by the names of labels, with its type.
pub fn prometheus(text: &str) -> Keys {
    let mut kinds = BTreeMap::new();
    let mut out = Keys::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        let (labels, _) = rest.rsplit_once('}').unwrap();
        let mut keys: Vec<String> = Vec::new();
        let mut rest = labels;
        while let Some((key, after)) = rest.split_once("=\"") {
            let end = after.find('"').unwrap();
            let value = &after[..end];
            keys.push(match key {
                "le" => format!("le={value}"),
                key => key.to_owned(),
            });
            rest = after[end + 1..].trim_start_matches(',');
        }
        keys.sort();
        let base = ["_bucket", "_sum", "_count"];
        let base = base.iter().find_map(|end| name.strip_suffix(end));
        let kind = kinds.get(name).or_else(|| kinds.get(base?));
        let kind = kind.cloned().unwrap_or_default();
        out.insert(format!("{name}{{{}}}", keys.join(",")), kind);
    }
    out
}
