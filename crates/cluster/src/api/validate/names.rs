//! Rules for names, label keys and label values, with the texts clients are used to.

use crate::api::kinds::NameRule;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// What is wrong with an object's name, if anything.
#[must_use]
pub fn problem(rule: NameRule, name: &str) -> Option<String> {
    match rule {
        NameRule::Subdomain => subdomain_problem(name),
        NameRule::Label => label_problem(name),
        NameRule::Service => label_1035_problem(name),
        NameRule::Path => {
            if name == "." || name == ".." {
                Some(format!("may not be '{name}'"))
            } else if name.contains(['/', '%']) {
                Some("may not contain '/' or '%'".to_owned())
            } else {
                None
            }
        }
    }
}

fn lower_or_digit(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && lower_or_digit(b[0])
        && lower_or_digit(b[b.len() - 1])
        && b.iter().all(|c| lower_or_digit(*c) || *c == b'-')
}

/// DNS-1123 subdomain.
#[must_use]
pub fn subdomain_problem(name: &str) -> Option<String> {
    if name.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    (!name.split('.').all(is_label)).then(|| SUBDOMAIN.to_owned())
}

/// DNS-1123 label.
#[must_use]
pub fn label_problem(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!is_label(name)).then(|| LABEL.to_owned())
}

/// DNS-1035 label.
#[must_use]
pub fn label_1035_problem(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    let ok = is_label(name) && name.as_bytes()[0].is_ascii_lowercase();
    (!ok).then(|| LABEL_1035.to_owned())
}

fn is_word(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && b[0].is_ascii_alphanumeric()
        && b[b.len() - 1].is_ascii_alphanumeric()
        && b.iter()
            .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// A label or annotation key: `[prefix/]name`.
#[must_use]
pub fn qualified_name_problem(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((p, n)) => (Some(p), n),
        None => (None, key),
    };
    if let Some(p) = prefix {
        if p.is_empty() {
            return Some("prefix part must be non-empty".to_owned());
        }
        if let Some(why) = subdomain_problem(p) {
            return Some(format!("prefix part {why}"));
        }
    }
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 characters".to_owned());
    }
    (!is_word(name)).then(|| QUALIFIED.to_owned())
}

/// A label value.
#[must_use]
pub fn label_value_problem(value: &str) -> Option<String> {
    if value.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!value.is_empty() && !is_word(value)).then(|| LABEL_VALUE.to_owned())
}

/// A key of a ConfigMap or Secret.
#[must_use]
pub fn config_key_problem(key: &str) -> Option<String> {
    let letters = key
        .bytes()
        .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    if key.is_empty() || key.len() > 253 || !letters {
        return Some(CONFIG_KEY.to_owned());
    }
    // A mounted key is a file's name, beside the link `..data` of the mount itself.
    let word = match key {
        "." => "must not be '.'",
        ".." => "must not be '..'",
        _ if key.starts_with("..") => "must not start with '..'",
        _ => return None,
    };
    Some(word.to_owned())
}

/// The name of an environment variable.
#[must_use]
pub fn variable_problem(name: &str) -> Option<&'static str> {
    let ok = name
        .bytes()
        .all(|c| (b' '..=b'~').contains(&c) && c != b'=');
    (!ok).then_some(
        "a valid environment variable name must consist only of printable ASCII characters other than '='",
    )
}

/// A port name: at most 15 lower-case characters, digits and single dashes, with a letter.
#[must_use]
pub fn port_name_problem(name: &str) -> Option<&'static str> {
    if name.len() > 15 {
        return Some("must be no more than 15 characters");
    }
    if !name.bytes().all(|c| lower_or_digit(c) || c == b'-') || name.is_empty() {
        return Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|c| c.is_ascii_lowercase()) {
        return Some("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        return Some("must not contain consecutive hyphens");
    }
    (name.starts_with('-') || name.ends_with('-')).then_some("must not begin or end with a hyphen")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        assert!(problem(NameRule::Subdomain, "a.b-c.1").is_none());
        assert!(problem(NameRule::Subdomain, "A").is_some());
        assert!(problem(NameRule::Subdomain, "a..b").is_some());
        assert!(problem(NameRule::Label, "a.b").is_some());
        assert!(problem(NameRule::Service, "1a").is_some());
        assert!(problem(NameRule::Path, "system:x").is_none());
        assert!(problem(NameRule::Path, "a/b").is_some());
        assert!(qualified_name_problem("a.io/Name_x").is_none());
        assert!(qualified_name_problem("/x").is_some());
        assert!(label_value_problem("").is_none());
        assert!(label_value_problem("-a").is_some());
        assert!(config_key_problem("a/b").is_some());
        assert!(config_key_problem("a..b").is_none());
        for (key, why) in [
            (".", "be '.'"),
            ("..", "be '..'"),
            ("..data", "start with '..'"),
        ] {
            assert_eq!(config_key_problem(key), Some(format!("must not {why}")));
        }
        assert!(variable_problem("a-b.c d").is_none());
        assert!(variable_problem("a=b").is_some() && variable_problem("\u{e9}").is_some());
        assert!(port_name_problem("http-web").is_none());
        assert!(port_name_problem("123").is_some());
    }
}
