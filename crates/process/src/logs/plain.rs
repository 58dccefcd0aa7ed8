//! Text without control characters: a log line may quote what came over the network, and must stay
//! one line that moves no cursor.

use std::fmt::{self, Write};

/// Writes control characters as escapes.
pub(super) struct Plain<W>(pub(super) W);

impl<W: Write> Write for Plain<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(char::is_control) {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            let mut chars = from.chars();
            for c in chars.by_ref().take(1) {
                write!(self.0, "{}", c.escape_default())?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let mut text = String::new();
        let written = Plain(&mut text).write_str("a\r\nb\x1b[31m\t\u{9b}é\\");
        assert!(written.is_ok());
        assert_eq!(text, "a\\r\\nb\\u{1b}[31m\\t\\u{9b}é\\");
    }
}
