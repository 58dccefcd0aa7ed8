//! Patterns of schemas: written for Go's regular expressions, compiled by ours. What Go takes
//! literally and ours would not is escaped first.

use regex::Regex;

/// Compiles a pattern as Go reads it.
///
/// # Errors
/// Not a regular expression, or one too large to compile.
pub(super) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&translate(pattern))
}

/// Whether the pattern is no regular expression at all (one too large for us is one).
pub(super) fn syntax_error(pattern: &str) -> Option<String> {
    match compile(pattern) {
        Err(regex::Error::Syntax(why)) => Some(why),
        _ => None,
    }
}

/// Escapes what is literal in Go: `[`, `&`, `~` and a `-` after a class within brackets, and a
/// brace that begins no count.
fn translate(pattern: &str) -> String {
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::with_capacity(pattern.len());
    let mut in_class = false;
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        let rest = &chars[i..];
        match c {
            '\\' => {
                out.push(c);
                i += 1;
                out.extend(chars.get(i));
                let class = matches!(chars.get(i), Some('w' | 'W' | 'd' | 'D' | 's' | 'S'));
                if in_class && class && chars.get(i + 1) == Some(&'-') {
                    out.push_str(r"\-");
                    i += 1;
                }
            }
            '[' if in_class => {
                let end = named_class(rest);
                if end == 0 {
                    out.push_str(r"\[");
                } else {
                    out.extend(&rest[..end]);
                    i += end - 1;
                }
            }
            '[' => {
                in_class = true;
                out.push(c);
                if chars.get(i + 1) == Some(&'^') {
                    out.push('^');
                    i += 1;
                }
                // A bracket at the very front closes nothing.
                if chars.get(i + 1) == Some(&']') {
                    out.push_str(r"\]");
                    i += 1;
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(c);
            }
            '&' | '~' if in_class => out.extend(['\\', c]),
            '{' if !in_class && !counts(rest) => out.push_str(r"\{"),
            _ => out.push(c),
        }
        i += 1;
    }
    out
}

/// Length of a `[:name:]` at the front, else 0.
fn named_class(rest: &[char]) -> usize {
    if rest.get(1) != Some(&':') {
        return 0;
    }
    let end = rest.windows(2).skip(2).position(|w| w == [':', ']']);
    end.map_or(0, |at| at + 4)
}

/// Whether the brace at the front begins a count: `{2}`, `{2,}`, `{2,3}`.
fn counts(rest: &[char]) -> bool {
    let Some(end) = rest.iter().position(|c| *c == '}') else {
        return false;
    };
    let text: String = rest[1..end].iter().collect();
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match text.split_once(',') {
        None => digits(&text),
        Some((low, high)) => digits(low) && (high.is_empty() || digits(high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_reads_literally_is_literal() {
        for (pattern, fits, not) in [
            ("^[^[]+$", "a", "["),
            (r"^[\w-.]+$", "a-b.c", "a b"),
            ("^a{b$", "a{b", "ab"),
            ("^a{2}$", "aa", "a{2}"),
            ("^[[:alpha:]]+$", "ab", "1"),
            ("^[a&&b]+$", "a&b", "c"),
            ("^[]a]+$", "]a", "b"),
            (r"^\{[a-z]{1,}\}$", "{ab}", "ab"),
        ] {
            let re = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert!(re.is_match(fits) && !re.is_match(not), "{pattern}");
        }
        for bad in ["(", "[a", "*a", "a)", r"\", "(?=a)"] {
            assert!(syntax_error(bad).is_some(), "{bad}");
        }
    }
}
