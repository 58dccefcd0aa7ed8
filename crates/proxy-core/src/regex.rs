//! Regular expressions with RE2's meaning on bytes: linear time, ASCII classes. What one may cost in
//! memory is bounded when it is compiled.
use std::fmt;
use std::sync::OnceLock;

use regex_automata::meta;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;

use crate::config::Name;
use crate::config::route::{Substitution, SubstitutionPart};

/// Most bytes of the program of a configured pattern; with groups that are asked for, its states
/// times its groups.
const CONFIGURED: usize = 1 << 20;
/// The same for a pattern in a question to the admin port.
const ASKED: usize = 64 << 10;

/// A pattern that does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexError {
    /// The pattern.
    pub pattern: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "regex `{}`: {}", self.pattern, self.reason)
    }
}

impl std::error::Error for RegexError {}

/// A regular expression with RE2's meaning on bytes: linear time, ASCII classes, full match for
/// matching, leftmost search for substitution.
pub struct Regex {
    source: Name,
    full: meta::Regex,
    groups: usize,
    replaces: OnceLock<Option<meta::Regex>>,
}

/// A regular expression that is looked for anywhere in a text, with RE2's meaning on bytes.
#[derive(Debug)]
pub struct Search(meta::Regex);

impl Search {
    /// Compiles a pattern of who asks, not of who configures: it may be less long.
    ///
    /// # Errors
    /// When the pattern is not valid, or its program would be too large.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        build(pattern, pattern, WhichCaptures::None, ASKED).map(Self)
    }

    /// Whether it is in the text.
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// When the pattern is not valid, or its program would be too large.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        // The pattern must stand alone: a wrapper must not close a group that it left open.
        let alone = build(pattern, pattern, WhichCaptures::All, CONFIGURED)?;
        let whole = format!("\\A(?:{pattern})\\z");
        Ok(Self {
            source: pattern.into(),
            // Groups would cost memory with every state (each group two words).
            full: build(pattern, &whole, WhichCaptures::None, CONFIGURED)?,
            groups: alone
                .group_info()
                .group_len(regex_automata::PatternID::ZERO),
            replaces: OnceLock::new(),
        })
    }

    /// Compiles it for [`Regex::replace_all`], which replaces nothing without.
    ///
    /// # Errors
    /// When its program with its groups would be too large.
    pub fn prepare_to_replace(&self) -> Result<(), RegexError> {
        let most = CONFIGURED / self.groups;
        let built = build(&self.source, &self.source, WhichCaptures::All, most)?;
        // Whoever was first has built the same.
        let _ = self.replaces.set(Some(built));
        Ok(())
    }

    /// The pattern as written.
    #[must_use]
    pub fn source(&self) -> &Name {
        &self.source
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn is_full_match(&self, text: &[u8]) -> bool {
        self.full.is_match(text)
    }

    /// Replaces every match in the text.
    #[must_use]
    pub fn replace_all(&self, text: &[u8], with: &Substitution) -> Vec<u8> {
        let prepared = self.replaces.get_or_init(|| {
            let fresh = self.clone();
            fresh.prepare_to_replace().ok()?;
            fresh.replaces.into_inner().flatten()
        });
        let Some(search) = prepared else {
            return text.to_vec();
        };
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        for caps in search.captures_iter(text) {
            let Some(whole) = caps.get_match() else {
                continue;
            };
            out.extend_from_slice(&text[at..whole.start()]);
            for part in &with.parts {
                match part {
                    SubstitutionPart::Literal(lit) => out.extend_from_slice(lit.as_bytes()),
                    SubstitutionPart::Group(n) => {
                        if let Some(span) = caps.get_group(*n) {
                            out.extend_from_slice(&text[span.start..span.end]);
                        }
                    }
                }
            }
            at = whole.end();
        }
        out.extend_from_slice(&text[at..]);
        out
    }

    /// Number of groups, the whole match included.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }
}

/// `most` = bytes of its program.
fn build(
    source: &str,
    pattern: &str,
    groups: WhichCaptures,
    most: usize,
) -> Result<meta::Regex, RegexError> {
    meta::Builder::new()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .configure(
            meta::Config::new()
                .utf8_empty(false)
                .hybrid_cache_capacity(64 << 10)
                .which_captures(groups)
                .nfa_size_limit(Some(most)),
        )
        .build(pattern)
        .map_err(|e| RegexError {
            pattern: source.to_owned(),
            reason: match (e.syntax_error(), e.size_limit()) {
                (Some(error), _) => error.to_string(),
                (None, Some(limit)) => format!("too large: its program takes over {limit} bytes"),
                (None, None) => e.to_string(),
            },
        })
}

impl Clone for Regex {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            full: self.full.clone(),
            groups: self.groups,
            replaces: self.replaces.clone(),
        }
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.source)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Regex {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cost_no_matching_and_bound_replacing() {
        let many = format!("{}z", "(.*)".repeat(1000));
        let regex = Regex::new(&many).unwrap();
        assert_eq!(regex.groups(), 1001);
        assert!(regex.is_full_match(b"abcz") && !regex.is_full_match(b"abc"));
        let refused = regex.prepare_to_replace().unwrap_err().to_string();
        assert!(refused.contains("too large"), "{refused}");
        let two = Regex::new("^/(.)(.*)$").unwrap();
        assert_eq!(two.prepare_to_replace(), Ok(()));
        let with = Substitution::parse("/\\2\\1", two.groups()).unwrap();
        assert_eq!(two.replace_all(b"/abc", &with), b"/bca");
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        assert!(Search::new("b.").is_ok_and(|s| s.is_in("abc") && !s.is_in("ab")));
        assert!(Search::new("(").is_err());
        assert!(Search::new(&"(.*)".repeat(10_000)).is_err());
    }
}
