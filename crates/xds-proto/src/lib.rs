//! Envoy, xDS and Istio wire types and type URLs, JSON form included.
