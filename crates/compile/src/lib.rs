//! Objects to snapshot: merging, scoping, defaults, cross-object checks.
