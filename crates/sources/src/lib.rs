//! Where objects come from: Kubernetes watch, files, memory.
