//! The object store: an in-memory multi-version index with a watch ring, made durable by redb.
