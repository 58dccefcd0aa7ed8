//! Heads to header blocks.

use super::hpack::{write_field, write_indexed, write_known, write_named};
use crate::http::head::Head;
use crate::http::known::Known;

/// Indexes of the static table (RFC 7541 appendix A).
const AUTHORITY: usize = 1;
const GET: usize = 2;
const POST: usize = 3;
const PATH: usize = 4;
const HTTP: usize = 6;
const HTTPS: usize = 7;
const STATUS: usize = 8;

/// Writes a request head. With `protocol` it is an extended CONNECT (RFC 8441).
pub fn write_request(head: &Head, protocol: &[u8], out: &mut Vec<u8>) {
    match head.method() {
        _ if !protocol.is_empty() => write_named(out, GET, b"CONNECT"),
        b"GET" => write_indexed(out, GET),
        b"POST" => write_indexed(out, POST),
        method => write_named(out, GET, method),
    }
    if head.method() != b"CONNECT" {
        match head.scheme() {
            b"https" => write_indexed(out, HTTPS),
            b"http" | b"" => write_indexed(out, HTTP),
            scheme => write_named(out, HTTP, scheme),
        }
    }
    if head.has_authority() {
        write_named(out, AUTHORITY, head.authority());
    }
    if head.method() != b"CONNECT" {
        match head.path() {
            b"/" => write_indexed(out, PATH),
            path => write_named(out, PATH, path),
        }
    }
    if !protocol.is_empty() {
        write_field(out, b":protocol", protocol);
    }
    write_lines(head, out);
}

/// Writes a response head. `status` stands for the head's.
pub fn write_response(head: &Head, status: u16, out: &mut Vec<u8>) {
    match status {
        200 => write_indexed(out, STATUS),
        204 => write_indexed(out, STATUS + 1),
        206 => write_indexed(out, STATUS + 2),
        304 => write_indexed(out, STATUS + 3),
        400 => write_indexed(out, STATUS + 4),
        404 => write_indexed(out, STATUS + 5),
        500 => write_indexed(out, STATUS + 6),
        other => {
            let mut digits = itoa::Buffer::new();
            write_named(out, STATUS, digits.format(other).as_bytes());
        }
    }
    write_lines(head, out);
}

/// Writes trailers.
pub fn write_trailers(head: &Head, out: &mut Vec<u8>) {
    write_lines(head, out);
}

/// The lines of a head without those of a connection (RFC 9113 section 8.2.2).
fn write_lines(head: &Head, out: &mut Vec<u8>) {
    for (known, name, value) in head.known_lines() {
        let of_connection = match known {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => true,
            Known::Te => !value.eq_ignore_ascii_case(b"trailers"),
            _ => false,
        };
        if !of_connection {
            write_known(out, known, name, value.trim_ascii());
        }
    }
}
