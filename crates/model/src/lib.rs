//! The mesh as we mean it: an immutable snapshot with indexes and origins.
