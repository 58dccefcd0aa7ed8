//! What a waiting person sees: the step at hand, turning on a terminal, one line a step elsewhere.

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::style;

/// The progress of one command, on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    current: RefCell<Option<(String, Instant)>>,
}

impl Progress {
    /// Starts without a step.
    pub fn start() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            current: RefCell::new(None),
        }
    }

    /// Ends the step at hand and begins the next.
    pub fn step(&self, text: &str) {
        self.end();
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
        *self.current.borrow_mut() = Some((text.to_owned(), Instant::now()));
    }

    /// Ends the last step.
    pub fn finish(&self) {
        self.end();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Ends the step at hand as one that did not get to its end.
    pub fn fail(&self) {
        if let Some((text, begun)) = self.current.borrow_mut().take() {
            let line = format!("{text} ({:.1} s)", begun.elapsed().as_secs_f32());
            match &self.bar {
                Some(bar) => bar.suspend(|| style::undone(&line)),
                None => style::undone(&line),
            }
        }
    }

    fn end(&self) {
        if let Some((text, begun)) = self.current.borrow_mut().take() {
            let line = format!("{text} ({:.1} s)", begun.elapsed().as_secs_f32());
            match &self.bar {
                Some(bar) => bar.suspend(|| style::done(&line)),
                None => style::done(&line),
            }
        }
    }
}
