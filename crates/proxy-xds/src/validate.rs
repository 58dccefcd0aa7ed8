//! Whether a bootstrap can be served, and if not, what is wrong where (`--mode validate`).

use crate::ads;
use crate::bootstrap::{Overrides, Source, load};
use crate::decode::{Context, try_log};

/// Reads a bootstrap and its static resources with all they name, serves nothing and leaves
/// nothing behind.
///
/// # Errors
/// The first thing that is wrong: file, line, field, and what would be right.
pub fn validate(
    sources: &[Source<'_>],
    overrides: &Overrides,
    context: Context,
) -> Result<(), String> {
    let context = Context {
        open_log: Box::new(try_log),
        ..context
    };
    let loaded = load(sources, overrides).map_err(|error| error.to_string())?;
    match ads::start(loaded, context, ads::Options::default()) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.located(sources).to_string()),
    }
}
