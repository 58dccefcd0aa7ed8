//! The kubectl programs to test with.

use std::path::PathBuf;

/// Every `kubectl` on PATH, each once; the tests need at least one.
pub fn kubectls() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .filter_map(|program| program.canonicalize().ok())
        .filter(|program| program.is_file())
        .collect();
    found.sort();
    found.dedup();
    assert!(
        !found.is_empty(),
        "no kubectl on PATH: install it, these tests drive the real one"
    );
    found
}
