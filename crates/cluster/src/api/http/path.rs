//! What a URL names: a resource, an object, a subresource, or something else.

use super::params::decode_segment;

/// A path below `/api` or `/apis`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) ns: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) sub: Option<String>,
    /// The old `/watch/` form.
    pub(crate) watch: bool,
}

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// `/api`.
    Legacy,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    Version(String, String),
    /// Something below a version.
    Resource(ResourcePath),
    /// Anything else.
    Other(String),
}

pub(crate) fn parse(path: &str) -> Named {
    let parts: Vec<String> = path
        .split('/')
        .filter(|p| !p.is_empty())
        .map(decode_segment)
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api"] => Named::Legacy,
        ["api", version] => Named::Version(String::new(), (*version).to_owned()),
        ["api", version, rest @ ..] => below("", version, rest, path),
        ["apis"] => Named::Groups,
        ["apis", group] => Named::Group((*group).to_owned()),
        ["apis", group, version] => Named::Version((*group).to_owned(), (*version).to_owned()),
        ["apis", group, version, rest @ ..] => below(group, version, rest, path),
        _ => Named::Other(path.trim_end_matches('/').to_owned()),
    }
}

fn below(group: &str, version: &str, rest: &[&str], path: &str) -> Named {
    let mut r = ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        ..ResourcePath::default()
    };
    let rest = match rest {
        ["watch", more @ ..] if !more.is_empty() => {
            r.watch = true;
            more
        }
        other => other,
    };
    let owned = |s: &&str| Some((*s).to_owned());
    let set = |r: &mut ResourcePath, plural: &str, name: Option<&&str>, sub: &[&str]| {
        plural.clone_into(&mut r.plural);
        r.name = name.and_then(owned);
        r.sub = (!sub.is_empty()).then(|| sub.join("/"));
    };
    match rest {
        // The subresources of a namespace itself.
        ["namespaces", name, sub @ ("status" | "finalize")] => {
            set(&mut r, "namespaces", Some(name), &[sub]);
            r.ns = owned(name);
        }
        ["namespaces", name] => {
            set(&mut r, "namespaces", Some(name), &[]);
            r.ns = owned(name);
        }
        ["namespaces", ns, plural] => {
            set(&mut r, plural, None, &[]);
            r.ns = owned(ns);
        }
        ["namespaces", ns, plural, name, sub @ ..] => {
            set(&mut r, plural, Some(name), sub);
            r.ns = owned(ns);
        }
        [plural] => set(&mut r, plural, None, &[]),
        [plural, name, sub @ ..] => set(&mut r, plural, Some(name), sub),
        [] => return Named::Other(path.to_owned()),
    }
    Named::Resource(r)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> ResourcePath {
        match parse(path) {
            Named::Resource(r) => r,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_name_resources() {
        let r = resource("/api/v1/namespaces/d/pods/p/log");
        assert_eq!(
            (
                r.plural.as_str(),
                r.ns.as_deref(),
                r.name.as_deref(),
                r.sub.as_deref()
            ),
            ("pods", Some("d"), Some("p"), Some("log"))
        );
        let r = resource("/api/v1/namespaces/d");
        assert_eq!(
            (r.plural.as_str(), r.name.as_deref()),
            ("namespaces", Some("d"))
        );
        let r = resource("/api/v1/namespaces/d/finalize");
        assert_eq!(r.sub.as_deref(), Some("finalize"));
        let r = resource("/apis/apps/v1/deployments");
        assert_eq!((r.group.as_str(), r.ns, r.name), ("apps", None, None));
        let r = resource("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Ax");
        assert_eq!(r.name.as_deref(), Some("system:x"));
        assert_eq!(
            parse("/apis/apps/v1"),
            Named::Version("apps".into(), "v1".into())
        );
        assert_eq!(parse("/healthz/"), Named::Other("/healthz".into()));
    }
}
