//! Process logs on standard error or in a file: one line an event, levels by target, colours only
//! on a terminal. Standard output is left to data.

mod file;
mod pattern;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, reload};

pub use file::LogFile;
pub use pattern::{Pattern, Told};

/// A level specification that could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "log level {given:?}: {reason}; use off, error, warn, info, debug or trace, or target=level pairs"
)]
pub struct BadLevel {
    given: String,
    reason: String,
}

type Handle = reload::Handle<EnvFilter, tracing_subscriber::Registry>;

/// The levels of a running log: readable, and settable while it runs.
#[derive(Clone)]
pub struct Levels {
    handle: Option<Handle>,
    state: Arc<Mutex<State>>,
}

/// The level of everything, and of the targets that have their own.
struct State {
    all: String,
    targets: BTreeMap<String, String>,
}

impl State {
    fn spec(&self) -> String {
        let pairs = self
            .targets
            .iter()
            .map(|(target, level)| format!(",{target}={level}"));
        self.all.clone() + &pairs.collect::<String>()
    }
}

impl Levels {
    /// The level of everything, then every target's own, sorted.
    pub fn list(&self) -> Vec<(String, String)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::iter::once(("all".to_owned(), state.all.clone()));
        all.chain(state.targets.clone()).collect()
    }

    /// Sets the level of one target, or of everything (which forgets the targets' own).
    ///
    /// # Errors
    /// When `level` is no level.
    pub fn set(&self, target: Option<&str>, level: &str) -> Result<(), BadLevel> {
        let level = match level {
            // Envoy's names.
            "warning" => "warn",
            "critical" => "error",
            other => other,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = State {
            all: state.all.clone(),
            targets: state.targets.clone(),
        };
        match target {
            Some(target) => {
                next.targets.insert(target.to_owned(), level.to_owned());
            }
            None => {
                next = State {
                    all: level.to_owned(),
                    targets: BTreeMap::new(),
                }
            }
        }
        let filter = filter(&next.spec())?;
        if let Some(handle) = &self.handle {
            // The subscriber lives as long as the process: the handle cannot outlive it.
            let _ = handle.reload(filter);
        }
        *state = next;
        Ok(())
    }
}

fn filter(spec: &str) -> Result<EnvFilter, BadLevel> {
    let bad = |reason: String| BadLevel {
        given: spec.to_owned(),
        reason,
    };
    for part in spec.split(',') {
        let level = part.rsplit('=').next().unwrap_or_default();
        if !["off", "error", "warn", "info", "debug", "trace"].contains(&level) {
            return Err(bad(format!("{level:?} is no level")));
        }
    }
    EnvFilter::try_new(spec).map_err(|error| bad(error.to_string()))
}

/// Where the lines go and what they look like.
#[derive(Debug, Default)]
pub struct Output {
    /// Colours, for a terminal.
    pub colours: bool,
    /// A file in place of standard error.
    pub file: Option<LogFile>,
    /// A pattern in place of the usual line.
    pub pattern: Option<Pattern>,
}

impl Output {
    fn layer<S>(self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        let lines = tracing_subscriber::fmt::layer().with_ansi(self.colours);
        match (self.file, self.pattern) {
            (None, None) => lines.with_writer(std::io::stderr).boxed(),
            (Some(file), None) => lines.with_writer(file).boxed(),
            (None, Some(pattern)) => {
                let lines = lines.with_writer(std::io::stderr);
                lines.event_format(pattern).boxed()
            }
            (Some(file), Some(pattern)) => lines.with_writer(file).event_format(pattern).boxed(),
        }
    }
}

/// Starts logging by `spec`: a level (`info`), or a level and `target=level` pairs joined by
/// commas.
///
/// # Errors
/// When `spec` is not such a specification. A logger that runs already is kept.
pub fn start(spec: &str, colours: bool) -> Result<Levels, BadLevel> {
    let output = Output {
        colours,
        ..Output::default()
    };
    start_to(spec, output)
}

/// [`start`] with a place and a shape of its own.
///
/// # Errors
/// As [`start`].
pub fn start_to(spec: &str, output: Output) -> Result<Levels, BadLevel> {
    let (layer, handle) = reload::Layer::new(filter(spec)?);
    let started = tracing_subscriber::registry()
        .with(layer)
        .with(output.layer())
        .try_init();
    let mut parts = spec.split(',');
    let all = parts.next().unwrap_or("info").to_owned();
    let pairs = parts.filter_map(|part| part.split_once('='));
    let targets = pairs
        .map(|(target, level)| (target.to_owned(), level.to_owned()))
        .collect();
    let state = Arc::new(Mutex::new(State { all, targets }));
    Ok(Levels {
        handle: started.is_ok().then_some(handle),
        state,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bad_level_is_named_with_the_remedy() {
        let error = super::start("info,x=loud", false)
            .err()
            .map(|e| e.to_string());
        let error = error.unwrap_or_default();
        assert!(
            error.contains("x=loud") && error.contains("debug"),
            "{error}"
        );
    }

    #[test]
    fn levels_can_be_read_and_set() {
        let levels = super::start("info,h2=warn", false).expect("levels");
        assert_eq!(levels.list()[1], ("h2".to_owned(), "warn".to_owned()));
        levels.set(Some("hyper"), "warning").expect("a level");
        assert_eq!(levels.list()[2], ("hyper".to_owned(), "warn".to_owned()));
        assert!(levels.set(None, "loud").is_err());
        levels.set(None, "debug").expect("a level");
        assert_eq!(levels.list(), [("all".to_owned(), "debug".to_owned())]);
    }
}
