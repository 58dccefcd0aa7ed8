//! Process logs on standard error or in a file: one line an event, levels by target, colours only
//! on a terminal. Standard output is left to data.

mod file;
mod filter;
mod line;
mod outlet;
mod plain;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, reload};

use filter::Filter;
use outlet::StandardError;
use plain::Plain;

pub use file::LogFile;
pub use line::{Line, Told};
pub use tracing::Level;

/// A level specification that could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "log level {given:?}: {reason}; use off, error, warn, info, debug or trace, or target=level pairs"
)]
pub struct BadLevel {
    given: String,
    reason: String,
}

type Handle = reload::Handle<Filter, tracing_subscriber::Registry>;

/// The levels of a running log: readable, and settable while it runs.
#[derive(Clone)]
pub struct Levels {
    handle: Option<Handle>,
    state: Arc<Mutex<State>>,
}

/// The level of everything, and of the targets that have their own, by their names.
#[derive(Clone, Debug)]
struct State {
    all: String,
    targets: BTreeMap<String, String>,
}

impl State {
    /// Reads a level and `target=level` pairs joined by commas; what stands later holds.
    fn parse(spec: &str) -> Result<Self, BadLevel> {
        let mut state = Self {
            all: "info".to_owned(),
            targets: BTreeMap::new(),
        };
        for part in spec.split(',') {
            match part.split_once('=') {
                None => part.clone_into(&mut state.all),
                Some((target, level)) => {
                    state.targets.insert(target.to_owned(), level.to_owned());
                }
            }
        }
        state.filter().map_err(|bad| BadLevel {
            given: spec.to_owned(),
            ..bad
        })?;
        Ok(state)
    }

    fn filter(&self) -> Result<Filter, BadLevel> {
        let level = |name: &String| {
            filter::level(name).ok_or_else(|| BadLevel {
                given: name.clone(),
                reason: format!("{name:?} is no level"),
            })
        };
        let targets = self.targets.iter();
        let targets = targets.map(|(target, name)| Ok((target.clone(), level(name)?)));
        Ok(Filter::new(
            level(&self.all)?,
            targets.collect::<Result<_, _>>()?,
        ))
    }
}

impl Levels {
    /// The level of everything, then every target's own, sorted.
    pub fn list(&self) -> Vec<(String, String)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::iter::once(("all".to_owned(), state.all.clone()));
        all.chain(state.targets.clone()).collect()
    }

    /// Sets the level of one target, or of everything (which forgets the targets' own). It holds
    /// for every thread from its next event on.
    ///
    /// # Errors
    /// When `level` is no level.
    pub fn set(&self, target: Option<&str>, level: &str) -> Result<(), BadLevel> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = state.clone();
        match target {
            Some(target) => {
                next.targets.insert(target.to_owned(), level.to_owned());
            }
            None => {
                level.clone_into(&mut next.all);
                next.targets.clear();
            }
        }
        let filter = next.filter()?;
        if let Some(handle) = &self.handle {
            // The subscriber lives as long as the process: the handle cannot outlive it.
            let _ = handle.reload(filter);
        }
        *state = next;
        Ok(())
    }
}

/// Where the lines go and what they look like.
#[derive(Default)]
pub struct Output {
    /// Colours, for a terminal.
    pub colours: bool,
    /// A file in place of standard error.
    pub file: Option<LogFile>,
    /// What writes a line in place of the usual one.
    pub line: Option<Line>,
}

impl Output {
    fn layer<S>(self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        // Whatever a message quotes stays on its line and writes to no terminal.
        let fields = format::debug_fn(|to, field, value| {
            let mut to = Plain(to);
            match field.name() {
                "message" => write!(to, "{value:?}"),
                name => write!(to, "{name}={value:?}"),
            }
        });
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(self.colours)
            .fmt_fields(fields.delimited(" "));
        match (self.file, self.line) {
            (None, None) => lines.with_writer(StandardError::default()).boxed(),
            (Some(file), None) => lines.with_writer(file).boxed(),
            (None, Some(line)) => lines
                .with_writer(StandardError::default())
                .event_format(line)
                .boxed(),
            (Some(file), Some(line)) => lines.with_writer(file).event_format(line).boxed(),
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
    let state = State::parse(spec)?;
    let (layer, handle) = reload::Layer::new(state.filter()?);
    let started = tracing_subscriber::registry()
        .with(layer)
        .with(output.layer())
        .try_init();
    Ok(Levels {
        handle: started.is_ok().then_some(handle),
        state: Arc::new(Mutex::new(state)),
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
        assert_eq!(levels.list()[2], ("hyper".to_owned(), "warning".to_owned()));
        assert!(levels.set(None, "loud").is_err());
        levels.set(None, "debug").expect("a level");
        assert_eq!(levels.list(), [("all".to_owned(), "debug".to_owned())]);
    }
}
