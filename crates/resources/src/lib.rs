//! What users write: Istio and Kubernetes objects, typed and checked.
