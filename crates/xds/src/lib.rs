//! Snapshot and proxy key to xDS resources, one file per type.
