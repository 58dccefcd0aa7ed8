//! Checks of single objects: what no shape can say.

use crate::{Diagnostic, Object};

/// Checks one object; empty when it is admitted without remark.
pub fn check(_object: &Object) -> Vec<Diagnostic> {
    Vec::new()
}
