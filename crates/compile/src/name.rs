//! Names as users write them, made whole: hosts, gateways, labels.

use crate::Pairs;
use lateen_model::{Labels, Origin, Selector, Str, host};
use lateen_resources::Object;
use std::net::IpAddr;

/// The origin of an object.
pub fn origin(object: &Object) -> Origin {
    Origin::new(
        object.kind.name(),
        object.meta.namespace.as_str(),
        object.meta.name.as_str(),
    )
}

/// Labels as shared text.
pub fn labels(pairs: &Pairs) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| (k.as_str().into(), v.as_str().into()))
        .collect()
}

/// A selector of shared text.
pub fn selector(pairs: &Pairs) -> Selector {
    Selector(labels(pairs))
}

/// A list of shared text.
pub fn list(items: &[String]) -> Vec<Str> {
    items.iter().map(|s| s.as_str().into()).collect()
}

/// Text that may be left out: empty is `None`.
pub fn optional(text: &str) -> Option<Str> {
    (!text.is_empty()).then(|| text.into())
}

/// A host as written in an object of `namespace`: short names are completed,
/// addresses are left alone.
pub fn full_host(written: &str, namespace: &str, domain: &str) -> Str {
    if written.contains(':') && written.parse::<IpAddr>().is_ok() {
        return written.into();
    }
    host::resolve_short_name(written, namespace, domain)
}

/// A gateway as written in a virtual service: `mesh`, `name`, `namespace/name`,
/// `./name` or the old `name.namespace.svc...`.
pub fn full_gateway(written: &str, namespace: &str) -> Str {
    if written == lateen_model::route::MESH_GATEWAY {
        return written.into();
    }
    if let Some((ns, name)) = written.split_once('/') {
        let ns = if ns == "." { namespace } else { ns };
        return format!("{ns}/{name}").into();
    }
    let mut parts = written.splitn(3, '.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(ns)) => format!("{ns}/{name}").into(),
        _ => format!("{namespace}/{written}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways() {
        assert_eq!(&*full_gateway("mesh", "a"), "mesh");
        assert_eq!(&*full_gateway("g", "a"), "a/g");
        assert_eq!(&*full_gateway("./g", "a"), "a/g");
        assert_eq!(&*full_gateway("b/g", "a"), "b/g");
        assert_eq!(&*full_gateway("g.b.svc.cluster.local", "a"), "b/g");
    }

    #[test]
    fn hosts() {
        assert_eq!(&*full_host("::1", "a", "cluster.local"), "::1");
        assert_eq!(
            &*full_host("r", "a", "cluster.local"),
            "r.a.svc.cluster.local"
        );
    }
}
