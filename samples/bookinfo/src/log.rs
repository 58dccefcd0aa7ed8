//! What a service tells its log: that it has started, and one line a request in the common log
//! format, which `kubectl logs` shows.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes};
use hyper::{Method, Response, Uri, Version};

/// Where a service's lines go.
#[derive(Clone)]
pub struct Log(Arc<dyn Fn(&str) + Send + Sync>);

impl Log {
    /// A log that hands each line, without its end, to `sink`.
    pub fn new(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// The log of a container: standard output, every line written at once.
    pub fn to_stdout() -> Self {
        Self::new(|line| {
            let mut out = std::io::stdout().lock();
            // Nobody reads the log: no reason to refuse a request.
            let _ = out.write_all(format!("{line}\n").as_bytes());
            let _ = out.flush();
        })
    }

    /// Writes one line.
    pub fn line(&self, line: &str) {
        (self.0)(line);
    }
}

/// What of a request the log tells once it is answered.
pub struct Asked {
    /// Who asked.
    pub peer: IpAddr,
    /// The method.
    pub method: Method,
    /// The target as it came.
    pub target: Uri,
    /// The protocol's version.
    pub version: Version,
}

/// The line of one request: `127.0.0.6 - - [21/Nov/2026:18:52:10 +0000] "GET /details/0 HTTP/1.1"
/// 200 178`, the last number the body's bytes.
pub fn request(asked: &Asked, answer: &Response<Full<Bytes>>, now: jiff::Timestamp) -> String {
    let peer = asked.peer.to_canonical();
    let time = now.strftime("%d/%b/%Y:%H:%M:%S +0000");
    let Asked {
        method,
        target,
        version,
        ..
    } = asked;
    let status = answer.status().as_u16();
    let bytes = answer.body().size_hint().lower();
    format!("{peer} - - [{time}] \"{method} {target} {version:?}\" {status} {bytes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_of_the_common_log_format() {
        let asked = Asked {
            peer: "::ffff:127.0.0.6".parse().expect("an address"),
            method: Method::GET,
            target: Uri::from_static("/productpage?u=test"),
            version: Version::HTTP_11,
        };
        let mut answer = Response::new(Full::new(Bytes::from_static(b"12345")));
        *answer.status_mut() = hyper::StatusCode::NOT_FOUND;
        let now = "2026-11-21T18:52:10Z".parse().expect("a time");
        assert_eq!(
            request(&asked, &answer, now),
            "127.0.0.6 - - [21/Nov/2026:18:52:10 +0000] \"GET /productpage?u=test HTTP/1.1\" 404 5"
        );
    }
}
