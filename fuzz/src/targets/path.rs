//! Paths and authorities: one view for router, policies and upstream.

use lateen_proxy_core::config::http_connection_manager::{EscapedSlashes, PathNormalization};
use lateen_proxy_core::path::{self, Normalized};
use lateen_proxy_core::uri_template::UriTemplate;

use crate::Target;
use crate::bytes::{choice, seeds, seeds_after, text};

/// Path normalisation in every mode.
pub const NORMALIZE: Target = Target {
    name: "path_normalize",
    run: normalize,
    seeds: || {
        let texts = [
            "/a/../b?q=/../",
            "/a/%2e%2E/b",
            "/a%2Fb%5cc\\d",
            "//a//.//b",
            "/a;p/..;x/b",
            "/%2%65%2%65/x",
            "/%00",
            "/a{b}|\"<>^`",
            "*",
        ];
        (0..16).flat_map(|mode| seeds_after(mode, &texts)).collect()
    },
    words: &[
        "/", "//", ".", "..", "/../", "%2e", "%2E", "%2f", "%5C", "\\", ";", "?", "%00", "%25",
        "%", "%2", "65", "#",
    ],
    rounds: 8000,
};

/// Hosts with and without ports.
pub const AUTHORITY: Target = Target {
    name: "authority",
    run: authority,
    seeds: || {
        seeds(&[
            "ex.com:80",
            "[::1]:80",
            "[::1]",
            "ex.com",
            "a:b:1",
            ":80",
            "ex.com:99999",
            "ex.com:",
        ])
    },
    words: &[":", "[", "]", "80", "65536", "a.b"],
    rounds: 4000,
};

/// URI path templates and paths they meet.
pub const TEMPLATE: Target = Target {
    name: "uri_template",
    run: template,
    seeds: || {
        seeds(&[
            "/a/{*}/b\n/a/x/b",
            "/{**}\n/a/b/c",
            "/a/{x=b/*}/**.png\n/a/b/c/d.png",
            "/*suffix\n/suffix",
            "/**/x\n/x",
        ])
    },
    words: &["{", "}", "*", "**", "{**}", "{*}", "=", "/", "\n"],
    rounds: 4000,
};

fn options(option: u8) -> PathNormalization {
    PathNormalization {
        normalize: option & 4 == 0,
        merge_slashes: option & 8 != 0,
        escaped_slashes: match option & 3 {
            0 => EscapedSlashes::Keep,
            1 => EscapedSlashes::Reject,
            2 => EscapedSlashes::UnescapeAndForward,
            _ => EscapedSlashes::UnescapeAndRedirect,
        },
    }
}

fn normalize(data: &[u8]) {
    let (option, path) = choice(data);
    let options = options(option);
    let found = match path::normalize(path, options) {
        Normalized::Reject => return,
        Normalized::Path(found) => found.into_owned(),
        Normalized::Redirect(found) => {
            assert_eq!(options.escaped_slashes, EscapedSlashes::UnescapeAndRedirect);
            found
        }
    };
    assert_eq!(path::query(&found), path::query(path), "the query changes");
    // What goes on must be what the next one sees, however often it is looked at.
    let again = path::normalize(&found, options);
    assert_eq!(
        again,
        Normalized::Path(found.as_slice().into()),
        "not yet normal"
    );
    let bare = path::without_query(&found);
    if options.normalize {
        assert!(!bare.contains(&b'\\'), "a backslash is left");
        if bare.starts_with(b"/") {
            let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
            assert!(!bare.split(|b| *b == b'/').any(dots), "dots are left");
        }
    }
    if options.merge_slashes {
        assert!(!bare.windows(2).any(|pair| pair == b"//"));
    }
}

fn authority(data: &[u8]) {
    let bare = path::without_port(data);
    assert!(data.starts_with(bare));
    let rest = &data[bare.len()..];
    match path::port(data) {
        Some(port) => {
            assert_eq!(rest.first(), Some(&b':'));
            let digits = std::str::from_utf8(&rest[1..]).expect("digits");
            assert_eq!(digits.parse(), Ok(port));
        }
        None => assert!(rest.is_empty() || rest[1..].iter().all(u8::is_ascii_digit)),
    }
    let parameters = path::without_parameters(data);
    assert!(!parameters.contains(&b';'));
    let count = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'/').count();
    assert!(count(&parameters) <= count(data));
}

fn template(data: &[u8]) {
    let Some((pattern, path)) = text(data).and_then(|text| text.split_once('\n')) else {
        return;
    };
    let Ok(template) = UriTemplate::parse(pattern) else {
        return;
    };
    assert_eq!(&**template.source(), pattern);
    let found = template.matches(path.as_bytes());
    if !pattern.contains(['*', '{', '}']) {
        assert_eq!(
            found,
            pattern == path,
            "a template without operators is its text"
        );
    }
    assert!(!found || path.starts_with('/'));
}
