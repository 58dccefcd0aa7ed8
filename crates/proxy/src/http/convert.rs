//! Heads to and from the types of the `h2` crate.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::head::Head;
use super::known::Known;

/// A head that HTTP/2 cannot carry.
#[derive(Debug, thiserror::Error)]
#[error("the head cannot be sent over HTTP/2: {0}")]
pub struct NotSendable(#[from] http::Error);

/// The lines of a head as a map, without those HTTP/2 forbids.
pub fn header_map(head: &Head) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(head.len());
    for (name, value) in head.lines() {
        if matches!(
            name,
            b"connection" | b"upgrade" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
        ) {
            continue;
        }
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// A request head for `h2::client`.
pub fn to_request(head: &Head) -> Result<Request<()>, NotSendable> {
    let scheme = match head.scheme() {
        b"" => &b"http"[..],
        scheme => scheme,
    };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(head.authority())
        .path_and_query(head.path())
        .build()?;
    let method = Method::from_bytes(head.method()).map_err(http::Error::from)?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = header_map(head);
    Ok(request)
}

/// A response head for `h2::server`.
pub fn to_response(head: &Head) -> Result<Response<()>, NotSendable> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(http::Error::from)?;
    *response.version_mut() = http::Version::HTTP_2;
    *response.headers_mut() = header_map(head);
    Ok(response)
}

/// Fills a head from a received request. `false` when it has neither
/// `:authority` nor `host`. Where both are, `:authority` wins.
pub fn from_request(parts: &http::request::Parts, head: &mut Head) -> bool {
    head.clear();
    head.set_method(parts.method.as_str().as_bytes());
    if parts.method != Method::CONNECT {
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        head.set_path(path.as_bytes());
    }
    if let Some(authority) = parts.uri.authority() {
        head.set_authority(authority.as_str().as_bytes());
    }
    if let Some(scheme) = parts.uri.scheme_str() {
        head.set_scheme(scheme.as_bytes());
    }
    for (name, value) in &parts.headers {
        let name = name.as_str().as_bytes();
        if name == b"host" {
            if !head.has_authority() {
                head.set_authority(value.as_bytes());
            }
            continue;
        }
        if name == b"cookie" && head.has(Known::Cookie) {
            // Crumbs become one line again (RFC 9113 section 8.2.3).
            head.join_known(Known::Cookie, b"; ", value.as_bytes());
            continue;
        }
        head.add(name, value.as_bytes());
    }
    head.has_authority()
}

/// Whether a request must not be read as one (RFC 9113 section 8.1.1): lengths
/// or hosts that two readers could take differently, or user information in an
/// authority (section 8.3.1).
pub fn is_malformed(parts: &http::request::Parts) -> bool {
    let lines = |name| parts.headers.get_all(name).iter().count();
    let with_user = |text: &[u8]| memchr::memchr(b'@', text).is_some();
    let authority = parts.uri.authority().map_or("", |a| a.as_str());
    let host = parts.headers.get(http::header::HOST);
    lines(http::header::CONTENT_LENGTH) > 1
        || lines(http::header::HOST) > 1
        || with_user(authority.as_bytes())
        || host.is_some_and(|h| with_user(h.as_bytes()))
}

/// Fills a head from a received response.
pub fn from_response(parts: &http::response::Parts, head: &mut Head) {
    head.clear();
    head.status = parts.status.as_u16();
    for (name, value) in &parts.headers {
        head.add(name.as_str().as_bytes(), value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut head = Head::new();
        head.set_method(b"GET");
        head.set_path(b"/a?b");
        head.set_authority(b"h:1");
        head.set_scheme(b"http");
        head.add(b"x", b"1");
        head.add(b"connection", b"upgrade");
        let request = to_request(&head).unwrap();
        let (parts, ()) = request.into_parts();
        let mut back = Head::new();
        assert!(from_request(&parts, &mut back));
        assert_eq!(back.path(), b"/a?b");
        assert_eq!(back.authority(), b"h:1");
        assert_eq!(back.lines().collect::<Vec<_>>(), [(&b"x"[..], &b"1"[..])]);
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let request = Request::get("http://h/")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        let mut head = Head::new();
        from_request(&request.into_parts().0, &mut head);
        assert_eq!(head.first(b"cookie"), Some(&b"a=1; b=2"[..]));
    }
}
