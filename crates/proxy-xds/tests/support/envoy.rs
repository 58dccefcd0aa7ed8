//! Where the real Envoy is: LATEEN_ENVOY, else on PATH.

use std::path::PathBuf;

/// The program, if there is one.
pub fn find() -> Option<PathBuf> {
    let named = std::env::var_os("LATEEN_ENVOY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("envoy"));
    named.into_iter().chain(found).find(|p| p.is_file())
}
