//! The redirection rules of an istio-init: from flags to rule sets, applied.
