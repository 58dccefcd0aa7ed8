//! The node agent: pods as processes in namespaces.
