//! What differs between two snapshots.

use lateen_model::{Changed, ConfigKey, Snapshot, Str};
use std::collections::HashMap;
use std::sync::Arc;

/// The objects that came, went or changed. Compiled items keep their place in
/// memory while they stay the same, so most comparisons are of pointers.
pub fn changed(old: &Snapshot, new: &Snapshot) -> Changed {
    if old.mesh != new.mesh {
        return Changed::everything();
    }
    let mut out = Changed::default();
    list(&mut out, "Service", old.services(), new.services(), |s| {
        (&s.namespace, &s.hostname)
    });
    list(
        &mut out,
        "VirtualService",
        old.virtual_services(),
        new.virtual_services(),
        |v| (&v.namespace, &v.name),
    );
    list(
        &mut out,
        "DestinationRule",
        old.destination_rules(),
        new.destination_rules(),
        |r| (&r.namespace, &r.name),
    );
    list(&mut out, "Gateway", old.gateways(), new.gateways(), |g| {
        (&g.namespace, &g.name)
    });
    let sidecars = |s: &Snapshot| s.sidecars().cloned().collect::<Vec<_>>();
    list(&mut out, "Sidecar", &sidecars(old), &sidecars(new), |s| {
        (&s.namespace, &s.name)
    });
    for (name, labels) in new.namespaces() {
        if old.namespaces().get(name) != Some(labels) {
            out.keys.insert(key("Namespace", &"".into(), name));
        }
    }
    for name in old
        .namespaces()
        .keys()
        .filter(|n| !new.namespaces().contains_key(*n))
    {
        out.keys.insert(key("Namespace", &"".into(), name));
    }
    out
}

fn key(kind: &str, namespace: &Str, name: &Str) -> ConfigKey {
    ConfigKey {
        kind: kind.into(),
        namespace: namespace.clone(),
        name: name.clone(),
    }
}

fn list<T: PartialEq>(
    out: &mut Changed,
    kind: &str,
    old: &[Arc<T>],
    new: &[Arc<T>],
    name: impl for<'t> Fn(&'t T) -> (&'t Str, &'t Str),
) {
    let mut before: HashMap<(&Str, &Str), Vec<&Arc<T>>> = HashMap::new();
    for item in old {
        before.entry(name(item)).or_default().push(item);
    }
    for item in new {
        let id = name(item);
        // Several rules may share a name after merging: each finds its own.
        let found = before.get_mut(&id).and_then(|list| {
            let at = list
                .iter()
                .position(|o| Arc::ptr_eq(o, item) || **o == *item)?;
            Some(list.swap_remove(at))
        });
        if found.is_none() {
            out.keys.insert(key(kind, id.0, id.1));
        }
    }
    for (id, left) in before {
        if !left.is_empty() {
            out.keys.insert(key(kind, id.0, id.1));
        }
    }
}
