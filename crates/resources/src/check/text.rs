//! Rules for names, hosts, headers and patterns.

use std::net::IpAddr;

/// Longest regular expression admitted.
const MAX_REGEX: usize = 1024;

/// A DNS label (RFC 1123): letters, digits and inner dashes, 1 to 63.
pub fn is_dns_label(s: &str) -> bool {
    !s.is_empty()
        && s.len() <= 63
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-')
}

/// A host name of labels; a final dot is admitted.
pub fn is_fqdn(s: &str) -> bool {
    let s = s.strip_suffix('.').unwrap_or(s);
    !s.is_empty()
        && s.len() <= 255
        // Underscores are no host names but exist in DNS and are admitted by Istio.
        && s.split('.').all(|l| is_dns_label(&l.replace('_', "x")))
}

/// Why a host (exact or with a leading `*`) is not valid; `None` when it is.
pub fn host_problem(s: &str) -> Option<&'static str> {
    if s.is_empty() {
        return Some("the host is empty");
    }
    if s == "*" {
        return None;
    }
    let rest = s.strip_prefix('*').unwrap_or(s);
    if rest.contains('*') {
        return Some("a wildcard is only allowed at the beginning");
    }
    if rest.len() != s.len() {
        let rest = rest
            .strip_prefix('.')
            .or_else(|| rest.strip_prefix('-'))
            .unwrap_or(rest);
        return if is_fqdn(rest) {
            None
        } else {
            Some("it is no host name")
        };
    }
    if is_fqdn(s) || s.parse::<IpAddr>().is_ok() {
        None
    } else {
        Some("it is no host name")
    }
}

/// A label name: optional DNS prefix, then a name of 1 to 63.
pub fn is_label_key(s: &str) -> bool {
    let (prefix, name) = s.rsplit_once('/').map_or((None, s), |(p, n)| (Some(p), n));
    prefix.is_none_or(is_fqdn) && !name.is_empty() && is_label_value(name)
}

/// A label value: empty, or letters, digits, `-`, `_`, `.`, up to 63.
pub fn is_label_value(s: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    s.len() <= 63
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && edge(s.chars().next())
        && edge(s.chars().last())
}

/// A header name (RFC 9110 token, without the rarer marks).
pub fn is_header_name(s: &str) -> bool {
    !s.is_empty()
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// An HTTP method.
pub fn is_method(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-')
}

/// Why a regular expression is not valid; `None` when it is.
pub fn regex_problem(s: &str) -> Option<String> {
    if s.len() > MAX_REGEX {
        return Some(format!("the expression is longer than {MAX_REGEX} bytes"));
    }
    let e = regex::Regex::new(s).err()?;
    let text = e.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    Some(format!(
        "the expression does not compile: {}",
        last.trim_start_matches("error: ")
    ))
}

/// Why a header value is not valid: Envoy reads `%NAME%` in it, so a bare `%`
/// must be doubled.
pub fn header_value_problem(s: &str) -> Option<&'static str> {
    if s.bytes().any(|b| b == b'\n' || b == b'\r' || b == 0) {
        return Some("a header value has no line breaks");
    }
    let mut rest = s;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(next) = after.strip_prefix('%') {
            rest = next;
            continue;
        }
        let name =
            after.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        let Some(end) = name.filter(|n| *n > 0) else {
            return Some("\"%\" begins a command such as %START_TIME%");
        };
        let Some((_, next)) = after[end..].split_once('%') else {
            return Some("a command such as %START_TIME% is not ended by \"%\"");
        };
        rest = next;
    }
    None
}

/// Protocol words of ports.
pub fn is_protocol(s: &str) -> bool {
    const WORDS: [&str; 13] = [
        "HTTP",
        "HTTP2",
        "HTTPS",
        "HTTP_PROXY",
        "GRPC",
        "GRPC-WEB",
        "MONGO",
        "MYSQL",
        "REDIS",
        "TCP",
        "TLS",
        "UDP",
        "HBONE",
    ];
    WORDS.contains(&s.to_ascii_uppercase().as_str())
}

/// An address or a CIDR block.
pub fn is_subnet(s: &str) -> bool {
    s.parse::<IpAddr>().is_ok() || s.parse::<ipnet::IpNet>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in [
            "a", "a.b", "*.a.b", "*", "10.0.0.1", "::1", "a_b.c", "*-x.com", "a.b.",
        ] {
            assert_eq!(host_problem(good), None, "{good}");
        }
        for bad in [
            "", "a..b", "*.*.a", "a.*.b", "-a", "http://a", "a b", "a:80",
        ] {
            assert!(host_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn header_values() {
        for good in [
            "",
            "a",
            "100%%",
            "%START_TIME%",
            "%REQ(x?y):5%x",
            "a %DOWNSTREAM_TLS_VERSION%",
        ] {
            assert_eq!(header_value_problem(good), None, "{good}");
        }
        for bad in ["100%", "% a%", "%START_TIME", "a\nb"] {
            assert!(header_value_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn labels() {
        assert!(is_label_key("app.kubernetes.io/name") && is_label_key("app"));
        assert!(!is_label_key("/app") && !is_label_key("a/") && !is_label_key("-a"));
        assert!(is_label_value("") && is_label_value("v1.2") && !is_label_value("v1."));
    }
}
