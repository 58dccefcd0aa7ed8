//! The loggers: Envoy's names, each the target of the lines that mean the same here, and the lines
//! that people follow a request by. A logger that is off costs one comparison. What came over the
//! network is escaped; of headers that bear secrets, and of queries, only the names are told.

use std::fmt;

use tracing::{Level, debug, enabled};

use crate::conn::Connection;
use crate::http::head::Head;
use crate::http::record::StreamRecord;

/// The admin port's requests.
pub const ADMIN: &str = "admin";
/// ADS: streams, responses, refusals.
pub const CONFIG: &str = "config";
/// Accepted connections.
pub const CONN_HANDLER: &str = "conn_handler";
/// Connections as such: opened, closed, TLS.
pub const CONNECTION: &str = "connection";
/// Names of DNS clusters.
pub const DNS: &str = "dns";
/// External authorisation.
pub const EXT_AUTHZ: &str = "ext_authz";
/// Access log files.
pub const FILE: &str = "file";
/// Listener filters.
pub const FILTER: &str = "filter";
/// Active health checks.
pub const HC: &str = "hc";
/// Requests and answers towards clients.
pub const HTTP: &str = "http";
/// Connections of HTTP/2.
pub const HTTP2: &str = "http2";
/// Tokens and their keys.
pub const JWT: &str = "jwt";
/// The process.
pub const MAIN: &str = "main";
/// Upstream connections chosen or opened for requests.
pub const POOL: &str = "pool";
/// Access control.
pub const RBAC: &str = "rbac";
/// Requests on their way to a cluster.
pub const ROUTER: &str = "router";
/// Reports of spans.
pub const TRACING: &str = "tracing";
/// Clusters and their hosts.
pub const UPSTREAM: &str = "upstream";

/// Those above.
#[cfg(test)]
pub(crate) const USED: &[&str] = &[
    ADMIN,
    CONFIG,
    CONN_HANDLER,
    CONNECTION,
    DNS,
    EXT_AUTHZ,
    FILE,
    FILTER,
    HC,
    HTTP,
    HTTP2,
    JWT,
    MAIN,
    POOL,
    RBAC,
    ROUTER,
    TRACING,
    UPSTREAM,
];

/// Whether a logger tells what happens to each request: the rest of the work is for those that do.
macro_rules! tells {
    ($logger:expr) => {
        tracing::enabled!(target: $logger, tracing::Level::DEBUG)
    };
}
pub(crate) use tells;

/// Which stream a line is of, in Envoy's form.
struct Tags<'a>(&'a StreamRecord);

impl fmt::Display for Tags<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (conn, stream) = (self.0.conn.id, self.0.random);
        write!(
            to,
            r#"[Tags: "ConnectionId":"{conn}","StreamId":"{stream}"]"#
        )
    }
}

/// A path whose query is not told: tokens travel in queries.
pub(crate) struct Path<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match memchr::memchr(b'?', self.0) {
            Some(at) => write!(to, "{}?[redacted]", self.0[..at].escape_ascii()),
            None => write!(to, "{}", self.0.escape_ascii()),
        }
    }
}

/// The headers of a head, in Envoy's form but on one line.
pub(crate) struct Headers<'a>(pub(crate) &'a Head);

/// Names with these words in them bear secrets.
const SECRETS: &[&[u8]] = &[
    b"authorization",
    b"x-auth",
    b"cookie",
    b"token",
    b"secret",
    b"passw",
    b"api-key",
    b"apikey",
    b"jwt",
    b"credential",
    b"assertion",
    b"signature",
];

fn is_secret(name: &[u8]) -> bool {
    let has = |word: &&[u8]| memchr::memmem::find(name, word).is_some();
    SECRETS.iter().any(has)
}

/// Whether a value may be a JSON web token, wherever it is told to stand.
fn holds_token(value: &[u8]) -> bool {
    // `{"` in base64url, as their heads begin.
    memchr::memmem::find(value, b"eyJ").is_some()
}

impl fmt::Display for Headers<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.0;
        if head.status != 0 {
            write!(to, "':status', '{}'", head.status)?;
        }
        let mut between = if head.status == 0 { "" } else { " " };
        let pseudo = [
            (":authority", head.authority()),
            (":method", head.method()),
            (":scheme", head.scheme()),
        ];
        for (name, value) in pseudo.into_iter().filter(|(_, value)| !value.is_empty()) {
            write!(to, "{between}'{name}', '{}'", value.escape_ascii())?;
            between = " ";
        }
        if !head.path().is_empty() {
            write!(to, "{between}':path', '{}'", Path(head.path()))?;
            between = " ";
        }
        for (name, value) in head.lines() {
            let name_shown = name.escape_ascii();
            match is_secret(name) || holds_token(value) {
                true => write!(to, "{between}'{name_shown}', '[redacted]'")?,
                // Some values are URLs, or quote one.
                false => write!(to, "{between}'{name_shown}', '{}'", Path(value))?,
            }
            between = " ";
        }
        Ok(())
    }
}

/// A request's head is whole.
pub(crate) fn request(record: &StreamRecord, end: bool) {
    if enabled!(target: HTTP, Level::DEBUG) {
        let (tags, head) = (Tags(record), Headers(&record.request));
        debug!(target: HTTP, "{tags} request headers complete (end_stream={end}): {head}");
    }
}

/// The proxy answers a request itself.
pub(crate) fn local_reply(record: &StreamRecord) {
    if enabled!(target: HTTP, Level::DEBUG) {
        let (tags, details) = (Tags(record), record.details.as_bytes().escape_ascii());
        debug!(target: HTTP, "{tags} Preparing local reply with details {details}");
    }
}

/// A response's head goes out.
pub(crate) fn response(record: &StreamRecord) {
    if enabled!(target: HTTP, Level::DEBUG) {
        let (tags, head) = (Tags(record), Headers(&record.response));
        debug!(target: HTTP, "{tags} encoding headers via codec: {head}");
    }
}

/// A request leads to a cluster.
pub(crate) fn matched(record: &StreamRecord, cluster: &str) {
    if enabled!(target: ROUTER, Level::DEBUG) {
        let (tags, path) = (Tags(record), Path(record.request.path()));
        debug!(target: ROUTER, "{tags} cluster '{cluster}' match for URL '{path}'");
    }
}

/// A request with its last edits goes to a host.
pub(crate) fn forwarded(record: &StreamRecord, host: &str) {
    if enabled!(target: ROUTER, Level::DEBUG) {
        let (tags, head) = (Tags(record), Headers(&record.request));
        let attempt = record.attempts;
        debug!(target: ROUTER, "{tags} router decoding headers (host {host}, attempt {attempt}): {head}");
    }
}

/// The answer's head came.
pub(crate) fn answered(record: &StreamRecord) {
    if enabled!(target: ROUTER, Level::DEBUG) {
        let (tags, status) = (Tags(record), record.response.status);
        debug!(target: ROUTER, "{tags} upstream headers complete: status={status}");
    }
}

/// No answer came.
pub(crate) fn reset(record: &StreamRecord, reason: &dyn fmt::Debug, text: &str) {
    if enabled!(target: ROUTER, Level::DEBUG) {
        let (tags, text) = (Tags(record), text.as_bytes().escape_ascii());
        debug!(target: ROUTER, "{tags} upstream reset: reset reason: {reason:?}, transport failure reason: {text}");
    }
}

/// Another try follows.
pub(crate) fn retried(record: &StreamRecord) {
    if enabled!(target: ROUTER, Level::DEBUG) {
        debug!(target: ROUTER, "{} performing retry", Tags(record));
    }
}

/// A filter's line on a request.
pub(crate) fn tagged(record: &StreamRecord) -> impl fmt::Display + '_ {
    Tags(record)
}

/// A client's connection is served from here on.
pub(crate) fn opened(conn: &Connection) {
    if enabled!(target: CONN_HANDLER, Level::DEBUG) {
        let (id, peer, listener) = (conn.id, conn.io.peer, &conn.listener.name);
        debug!(target: CONN_HANDLER, r#"[Tags: "ConnectionId":"{id}"] new connection from {peer} at listener {listener}"#);
    }
}

/// And no longer.
pub(crate) fn closed(conn: &Connection) {
    if enabled!(target: CONNECTION, Level::DEBUG) {
        let (id, remote) = (conn.id, conn.io.ended_by_peer());
        let by = if remote {
            "remote close"
        } else {
            "local close"
        };
        debug!(target: CONNECTION, r#"[Tags: "ConnectionId":"{id}"] {by}"#);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_bytes_of_others_are_not_told() {
        let mut head = Head::new();
        head.set_method(b"GET");
        head.set_authority(b"h");
        head.set_path(b"/a\x1b[2J?access_token=hidden");
        head.add(b"authorization", b"Bearer hidden");
        head.add(b"cookie", b"hidden");
        head.add(b"x-goog-iap-jwt-assertion", b"hidden");
        head.add(b"x-who", b"me\xff'\\");
        let shown = Headers(&head).to_string();
        assert_eq!(
            shown,
            r"':authority', 'h' ':method', 'GET' ':path', '/a\x1b[2J?[redacted]' 'authorization', '[redacted]' 'cookie', '[redacted]' 'x-goog-iap-jwt-assertion', '[redacted]' 'x-who', 'me\xff\'\\'"
        );
        let mut answer = Head::new();
        answer.status = 200;
        answer.add(b"set-cookie", b"hidden");
        answer.add(b"location", b"/a?hidden");
        answer.add(b"x-anything", b"eyJhidden");
        answer.add(b"www-authenticate", b"Bearer realm=\"http://a/b?hidden\"");
        let shown = Headers(&answer).to_string();
        assert!(!shown.contains("hidden"), "{shown}");
        assert!(shown.contains("'location', '/a?[redacted]'"), "{shown}");
    }

    #[test]
    fn every_logger_is_one_of_envoys() {
        for name in USED {
            assert!(crate::admin::is_logger(name), "{name}");
        }
    }
}
