//! Matchers over strings, headers, query parameters and metadata, with Envoy's rules:
//! each header line is matched alone, any matching line is a match, `invert` means that none
//! matches, and an absent header never matches (unless it counts as empty).
use crate::config::route::{Substitution, SubstitutionPart};
use crate::config::{Name, Value};
use crate::known::Known;
pub use crate::regex::{Regex, RegexError};

/// Request or response headers as the matchers see them. Names are lower-case; `:method`, `:path`
/// (with query), `:authority` and `:scheme` are served too.
pub trait Headers {
    /// Calls `visit` for each line of the header until it returns true; tells whether it did.
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool;

    /// The first line of the header.
    fn first(&self, name: &str) -> Option<&[u8]>;

    /// The first line of a header that has a number. Who keeps the numbers looks no name up.
    fn known(&self, name: Known) -> Option<&[u8]> {
        self.first(name.name())
    }

    /// How many lines a header has that has a number.
    fn count(&self, name: Known) -> usize {
        let mut lines = 0;
        self.any(name.name(), &mut |_| {
            lines += 1;
            false
        });
        lines
    }
}

/// A list of (name, value) pairs, for tests and small callers.
impl Headers for [(&str, &str)] {
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.iter()
            .filter(|(n, _)| *n == name)
            .any(|(_, v)| visit(v.as_bytes()))
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.as_bytes())
    }
}

impl Substitution {
    /// Cuts `a\1b` at its groups; `\\` is a backslash.
    ///
    /// # Errors
    /// A text saying what is wrong: a lone backslash, or a group the pattern does not have.
    pub fn parse(text: &str, groups: usize) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                literal.push(c);
                continue;
            }
            match chars.next() {
                Some('\\') => literal.push('\\'),
                Some(d) if d.is_ascii_digit() => {
                    let group = d as usize - '0' as usize;
                    if group >= groups {
                        return Err(format!(
                            "\\{group} is more than the {} groups of the pattern",
                            groups - 1
                        ));
                    }
                    if !literal.is_empty() {
                        parts.push(SubstitutionPart::Literal(
                            std::mem::take(&mut literal).into(),
                        ));
                    }
                    parts.push(SubstitutionPart::Group(group));
                }
                _ => return Err("a backslash must be followed by a digit or a backslash".into()),
            }
        }
        if !literal.is_empty() {
            parts.push(SubstitutionPart::Literal(literal.into()));
        }
        Ok(Self { parts })
    }
}

/// A rule over a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatcher {
    /// The rule.
    pub rule: StringRule,
    /// ASCII letter case plays no part (not for regex).
    pub ignore_case: bool,
}

/// Kinds of string rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringRule {
    /// Equal.
    Exact(Name),
    /// Starts with.
    Prefix(Name),
    /// Ends with.
    Suffix(Name),
    /// Has inside.
    Contains(Name),
    /// Matches as a whole.
    Regex(Regex),
}

impl StringMatcher {
    /// An exact rule.
    #[must_use]
    pub fn exact(text: &str) -> Self {
        Self {
            rule: StringRule::Exact(text.into()),
            ignore_case: false,
        }
    }

    /// A prefix rule.
    #[must_use]
    pub fn prefix(text: &str) -> Self {
        Self {
            rule: StringRule::Prefix(text.into()),
            ignore_case: false,
        }
    }

    /// Whether the value matches.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8]| {
            if self.ignore_case {
                a.eq_ignore_ascii_case(b)
            } else {
                a == b
            }
        };
        match &self.rule {
            StringRule::Exact(want) => same(value, want.as_bytes()),
            StringRule::Prefix(want) => value
                .get(..want.len())
                .is_some_and(|v| same(v, want.as_bytes())),
            StringRule::Suffix(want) => value
                .len()
                .checked_sub(want.len())
                .is_some_and(|at| same(&value[at..], want.as_bytes())),
            StringRule::Contains(want) if !self.ignore_case => {
                memchr::memmem::find(value, want.as_bytes()).is_some()
            }
            StringRule::Contains(want) => {
                want.is_empty()
                    || value
                        .windows(want.len())
                        .any(|w| w.eq_ignore_ascii_case(want.as_bytes()))
            }
            StringRule::Regex(re) => re.is_full_match(value),
        }
    }
}

/// A rule over the path without query and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMatcher(pub StringMatcher);

impl PathMatcher {
    /// Whether the path of a `:path` value matches.
    #[must_use]
    pub fn matches(&self, path_and_query: &[u8]) -> bool {
        self.0.matches(crate::path::without_query(path_and_query))
    }
}

/// A rule over a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// Lower-case name.
    pub name: Name,
    /// The rule.
    pub rule: HeaderRule,
    /// Turns the answer round.
    pub invert: bool,
    /// An absent header counts as an empty one.
    pub missing_as_empty: bool,
}

/// Kinds of header rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRule {
    /// Is there (true) or not (false).
    Present(bool),
    /// Value as text.
    String(StringMatcher),
    /// Value as a base-10 number in `[start, end)`.
    Range(i64, i64),
}

impl HeaderMatcher {
    /// Whether the headers match.
    #[must_use]
    pub fn matches<H: Headers + ?Sized>(&self, headers: &H) -> bool {
        if let HeaderRule::Present(want) = self.rule {
            let there = headers.first(&self.name).is_some() || self.missing_as_empty;
            return (there == want) != self.invert;
        }
        if self.name.starts_with(':') {
            // One line at most.
            return match headers.first(&self.name) {
                Some(value) => self.line(value) != self.invert,
                None => self.missing_as_empty && self.line(b"") != self.invert,
            };
        }
        let mut there = false;
        let found = headers.any(&self.name, &mut |line| {
            there = true;
            self.line(line)
        });
        match there {
            true => found != self.invert,
            false => self.missing_as_empty && self.line(b"") != self.invert,
        }
    }

    fn line(&self, value: &[u8]) -> bool {
        match &self.rule {
            HeaderRule::Present(want) => *want,
            HeaderRule::String(m) => m.matches(value),
            HeaderRule::Range(start, end) => std::str::from_utf8(value)
                .ok()
                .and_then(|v| v.parse::<i64>().ok())
                .is_some_and(|n| n >= *start && n < *end),
        }
    }
}

/// A rule over the first query parameter of a name; values are not percent-decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatcher {
    /// Parameter name as it stands in the query.
    pub name: Name,
    /// Rule of the value; none = the parameter is there.
    pub value: Option<StringMatcher>,
    /// Used instead of `value`: is there (true) or not (false).
    pub present: Option<bool>,
}

impl QueryMatcher {
    /// Whether the query (text after `?`) matches.
    #[must_use]
    pub fn matches(&self, query: Option<&[u8]>) -> bool {
        let found = query.and_then(|q| query_parameter(q, self.name.as_bytes()));
        if let Some(present) = self.present {
            return found.is_some() == present;
        }
        match (&self.value, found) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(m), Some(v)) => m.matches(v),
        }
    }
}

/// A rule over a cookie of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieMatcher {
    /// Its name.
    pub name: Name,
    /// Rule of its value.
    pub value: StringMatcher,
    /// Matches where the rule does not, and requests without the cookie.
    pub invert: bool,
}

impl CookieMatcher {
    /// Whether a request's cookie matches.
    #[must_use]
    pub fn matches<H: Headers + ?Sized>(&self, headers: &H) -> bool {
        let value = crate::hash_policy::cookie(headers, &self.name);
        value.is_some_and(|value| self.value.matches(&value)) != self.invert
    }
}

/// The first value of a query parameter, undecoded; a parameter without `=` has an empty value.
/// Looks for the name, not at each parameter: a route table may ask a long query for many names.
#[must_use]
pub fn query_parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    memchr::memmem::find_iter(query, name).find_map(|at| {
        if at > 0 && query[at - 1] != b'&' {
            return None;
        }
        let rest = &query[at..];
        let pair = memchr::memchr(b'&', rest).map_or(rest, |end| &rest[..end]);
        let (key, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        (key == name).then_some(value)
    })
}

/// A rule over dynamic metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataMatcher {
    /// Namespace (filter name).
    pub filter: Name,
    /// Keys to follow.
    pub path: Vec<Name>,
    /// Rule of the value found.
    pub value: ValueMatcher,
    /// Turns the answer round.
    pub invert: bool,
}

/// A rule over a metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatcher {
    /// Null.
    Null,
    /// Equal number.
    Double(f64),
    /// Number in `[start, end)`.
    DoubleRange(f64, f64),
    /// Text.
    String(StringMatcher),
    /// Equal boolean.
    Bool(bool),
    /// Is there.
    Present(bool),
    /// One element of a list matches.
    ListAny(Box<ValueMatcher>),
    /// One of these rules matches.
    Or(Vec<ValueMatcher>),
}

impl MetadataMatcher {
    /// Whether the metadata (found by namespace) matches.
    #[must_use]
    pub fn matches(&self, namespace: Option<&Value>) -> bool {
        let found = namespace.and_then(|v| v.path(&self.path));
        self.value.matches(found) != self.invert
    }
}

impl ValueMatcher {
    /// Whether a value, where there is one, is so.
    pub(crate) fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Present(want), v) => v.is_some() == *want,
            (Self::Or(rules), v) => rules.iter().any(|r| r.matches(v)),
            (Self::Null, Some(Value::Null)) => true,
            (Self::Double(want), Some(Value::Number(n))) => n == want,
            (Self::DoubleRange(a, b), Some(Value::Number(n))) => n >= a && n < b,
            (Self::String(m), Some(Value::String(s))) => m.matches(s.as_bytes()),
            (Self::Bool(want), Some(Value::Bool(b))) => want == b,
            (Self::ListAny(rule), Some(Value::List(list))) => {
                list.iter().any(|v| rule.matches(Some(v)))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn re(p: &str) -> Regex {
        Regex::new(p).unwrap()
    }

    #[test]
    fn regex_is_a_full_byte_match() {
        assert!(re("/a.*").is_full_match(b"/abc"));
        assert!(!re("a").is_full_match(b"ab"));
        assert!(re("a|ab").is_full_match(b"ab"));
        assert!(re("/.").is_full_match(b"/\xff"));
        assert!(!re(r"\d+").is_full_match("٣".as_bytes()));
        assert!(Regex::new("(").is_err());
        assert!(Regex::new("a)(b").is_err());
    }

    #[test]
    fn substitution_of_all_matches() {
        let r = re("/service/([^/]+)(/.*)?$");
        let s = Substitution::parse(r"\2/instance/\1", r.groups()).unwrap();
        assert_eq!(
            r.replace_all(b"/service/foo/v1/api", &s),
            b"/v1/api/instance/foo"
        );
        let r = re("one");
        let s = Substitution::parse("two", r.groups()).unwrap();
        assert_eq!(
            r.replace_all(b"/xxx/one/yyy/one/zzz", &s),
            b"/xxx/two/yyy/two/zzz"
        );
        assert!(Substitution::parse(r"\2", 2).is_err());
        assert!(Substitution::parse("a\\", 2).is_err());
    }

    #[test]
    fn header_rules() {
        let one: &[(&str, &str)] = &[("x", "a"), ("x", "b"), ("n", "42")];
        let m = |name: &str, rule: HeaderRule, invert: bool, empty: bool| {
            HeaderMatcher {
                name: name.into(),
                rule,
                invert,
                missing_as_empty: empty,
            }
            .matches(one)
        };
        let exact = |v: &str| HeaderRule::String(StringMatcher::exact(v));
        let table = [
            (m("x", exact("b"), false, false), true, "any line"),
            (
                m("x", exact("a,b"), false, false),
                false,
                "never the joined text",
            ),
            (
                m("x", exact("b"), true, false),
                false,
                "invert: none may match",
            ),
            (
                m("x", exact("c"), true, false),
                true,
                "invert: none matches",
            ),
            (
                m("gone", exact("c"), true, false),
                false,
                "absent never matches",
            ),
            (m("gone", exact(""), false, true), true, "absent as empty"),
            (
                m("gone", exact("c"), true, true),
                true,
                "absent as empty, inverted",
            ),
            (
                m("x", HeaderRule::Present(true), false, false),
                true,
                "present",
            ),
            (
                m("gone", HeaderRule::Present(true), true, false),
                true,
                "not present",
            ),
            (
                m("gone", HeaderRule::Present(false), false, false),
                true,
                "absent",
            ),
            (
                m("n", HeaderRule::Range(42, 43), false, false),
                true,
                "range start is in",
            ),
            (
                m("n", HeaderRule::Range(41, 42), false, false),
                false,
                "range end is out",
            ),
            (
                m("x", HeaderRule::Range(0, 9), false, false),
                false,
                "not a number",
            ),
        ];
        for (got, want, what) in table {
            assert_eq!(got, want, "{what}");
        }
    }

    #[test]
    fn query_rules() {
        let q = Some(&b"a=1&b&a=2&c=%41"[..]);
        let m = |name: &str, value: Option<&str>| QueryMatcher {
            name: name.into(),
            value: value.map(StringMatcher::exact),
            present: None,
        };
        assert!(m("a", Some("1")).matches(q));
        assert!(!m("a", Some("2")).matches(q), "first occurrence only");
        assert!(m("b", None).matches(q));
        assert!(m("b", Some("")).matches(q));
        assert!(!m("c", Some("A")).matches(q), "not decoded");
        assert!(!m("d", None).matches(q));
        assert!(!m("a", None).matches(None));
    }

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        for (query, name, want) in [
            ("ab=1&b=2", "b", Some("2")),
            ("bb=1&b", "b", Some("")),
            ("b=1&b=2", "b", Some("1")),
            ("a=b&xb=1", "b", None),
            ("a=b=c&b=d=e", "b", Some("d=e")),
            ("bbb&bb=2", "bb", Some("2")),
            ("a&b=1", "a&b", None),
            ("a=b", "a=b", None),
            ("a&&c", "", Some("")),
            ("a&=1&=2", "", Some("1")),
            ("a=1&c", "", None),
            ("a&", "", Some("")),
            ("", "a", None),
        ] {
            let found = query_parameter(query.as_bytes(), name.as_bytes());
            assert_eq!(found, want.map(str::as_bytes), "{name} in {query}");
        }
    }

    #[test]
    fn string_rules_ignore_case() {
        let m = |rule| StringMatcher {
            rule,
            ignore_case: true,
        };
        assert!(m(StringRule::Exact("AbC".into())).matches(b"aBc"));
        assert!(m(StringRule::Prefix("Ab".into())).matches(b"aBc"));
        assert!(m(StringRule::Suffix("bC".into())).matches(b"aBc"));
        assert!(m(StringRule::Contains("B".into())).matches(b"abc"));
        assert!(!m(StringRule::Suffix("xaBc".into())).matches(b"aBc"));
    }
}
