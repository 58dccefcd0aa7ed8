//! What objects get wrong about each other.

use lateen_resources::{Diagnostic, ObjectSet};

/// Findings about all objects.
pub fn analyze(_objects: &ObjectSet) -> Vec<Diagnostic> {
    Vec::new()
}
