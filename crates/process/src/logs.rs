//! Process logs on standard error: one line an event, levels by target, colours only on a
//! terminal. Standard output is left to data.

use tracing_subscriber::EnvFilter;

/// A level specification that could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "log level {given:?}: {reason}; use off, error, warn, info, debug or trace, or target=level pairs"
)]
pub struct BadLevel {
    given: String,
    reason: String,
}

/// Starts logging by `spec`: a level (`info`), or `target=level` pairs joined by commas.
///
/// # Errors
/// When `spec` is not such a specification. A logger that runs already is kept.
pub fn start(spec: &str, colours: bool) -> Result<(), BadLevel> {
    let filter = EnvFilter::try_new(spec).map_err(|error| BadLevel {
        given: spec.to_owned(),
        reason: error.to_string(),
    })?;
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(true)
        .try_init();
    Ok(())
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
}
