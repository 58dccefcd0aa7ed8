//! The one gate for what may reach a person's terminal: talk goes to standard error, colours only
//! where it is a terminal (`anstream` decides), data goes to standard output untouched.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

const RED: Style = AnsiColor::Red.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

fn line(style: Style, mark: &str, text: &str) {
    // Standard error gone is nothing to report anywhere.
    let _ = writeln!(anstream::stderr(), "{style}{mark}{style:#} {text}");
}

/// A failure's message.
pub fn error(text: &str) {
    line(RED, "Error:", text);
}

/// The next step after a failure.
pub fn hint(text: &str) {
    line(CYAN, "hint:", text);
}

/// Something done.
pub fn done(text: &str) {
    line(GREEN, "\u{2714}", text);
}

/// Something that did not get to its end.
pub fn undone(text: &str) {
    line(YELLOW, "\u{2718}", text);
}

/// Something to know that stops nothing.
pub fn warning(text: &str) {
    line(YELLOW, "warning:", text);
}

/// Data, on standard output.
///
/// # Errors
/// When standard output is closed.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
