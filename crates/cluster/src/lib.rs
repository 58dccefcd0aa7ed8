//! The embedded single-machine Kubernetes-compatible cluster.
