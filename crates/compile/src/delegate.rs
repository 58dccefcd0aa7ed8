//! Delegation: rules that continue in another virtual service are replaced by
//! that one's rules, each condition being the intersection of both.

use crate::virtual_service::Converted;
use lateen_model::Str;
use lateen_model::route::{
    HeaderEdits, HttpAction, HttpMatch, HttpRoute, NamedMatch, StringMatch, VirtualService,
};
use lateen_resources::object::ObjectRef;
use lateen_resources::{Code, Diagnostic};
use std::collections::HashMap;
use std::sync::Arc;

type Key = (Str, Str);

/// Merged roots, kept while the root and all its delegates stay the same.
#[derive(Debug, Default)]
pub struct Cache {
    merged: HashMap<Key, (Vec<Arc<Converted>>, Arc<VirtualService>)>,
}

impl Cache {
    /// All virtual services that have hosts, delegates merged in.
    pub fn merge(
        &mut self,
        all: &[Arc<Converted>],
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Vec<Arc<VirtualService>> {
        let key = |v: &VirtualService| (v.namespace.clone(), v.name.clone());
        let by_key: HashMap<Key, &Arc<Converted>> =
            all.iter().map(|c| (key(&c.service), c)).collect();
        let mut old = std::mem::take(&mut self.merged);
        let mut out = Vec::with_capacity(all.len());
        for root in all.iter().filter(|c| !c.is_delegate()) {
            let mut inputs = vec![root.clone()];
            for (_, ns, name) in &root.delegates {
                inputs.extend(
                    by_key
                        .get(&(ns.clone(), name.clone()))
                        .map(|c| (*c).clone()),
                );
            }
            report_missing(root, &by_key, diagnostics);
            let key = key(&root.service);
            let same = |(was, _): &(Vec<Arc<Converted>>, Arc<VirtualService>)| {
                was.len() == inputs.len() && was.iter().zip(&inputs).all(|(a, b)| Arc::ptr_eq(a, b))
            };
            let merged = match old.remove(&key).filter(same) {
                Some((_, merged)) => merged,
                None => Arc::new(merge(root, &by_key)),
            };
            out.push(merged.clone());
            self.merged.insert(key, (inputs, merged));
        }
        out
    }
}

fn delegate_of<'c>(
    root: &Converted,
    by_key: &HashMap<Key, &'c Arc<Converted>>,
    ns: &Str,
    name: &Str,
) -> Option<&'c Arc<Converted>> {
    let found = by_key.get(&(ns.clone(), name.clone()))?;
    let usable = found.is_delegate()
        && found.delegates.is_empty()
        && found.service.export_to.visible_in(&root.service.namespace);
    usable.then_some(*found)
}

fn report_missing(
    root: &Converted,
    by_key: &HashMap<Key, &Arc<Converted>>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for (i, ns, name) in &root.delegates {
        if delegate_of(root, by_key, ns, name).is_some() {
            continue;
        }
        let object = ObjectRef {
            kind: "VirtualService".into(),
            namespace: root.service.namespace.to_string(),
            name: root.service.name.to_string(),
        };
        let message = format!("Referenced delegate virtual service not found: \"{ns}/{name}\"");
        let d = Diagnostic::new(Code::NOT_FOUND, Some(object), message)
            .at(format!("spec.http[{i}].delegate"))
            .remedy(
                "a delegate has no hosts, no delegates of its own, and is exported to the root's namespace",
            );
        diagnostics.push(d);
    }
}

fn merge(root: &Arc<Converted>, by_key: &HashMap<Key, &Arc<Converted>>) -> VirtualService {
    if root.delegates.is_empty() {
        return root.service.clone();
    }
    let mut http = Vec::new();
    for (i, rule) in root.service.http.iter().enumerate() {
        match root.delegates.iter().find(|(at, ..)| *at == i) {
            None => http.push(rule.clone()),
            Some((_, ns, name)) => {
                let Some(delegate) = delegate_of(root, by_key, ns, name) else {
                    continue;
                };
                http.extend(delegate.service.http.iter().filter_map(|d| join(rule, d)));
            }
        }
    }
    VirtualService {
        http,
        ..root.service.clone()
    }
}

fn join_names(root: &Str, delegate: &Str) -> Str {
    match (root.is_empty(), delegate.is_empty()) {
        (false, false) => format!("{root}-{delegate}").into(),
        (true, _) => delegate.clone(),
        _ => root.clone(),
    }
}

/// The delegate's rule under the root's conditions; `None` when no request can meet both.
fn join(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let mut out = delegate.clone();
    out.name = join_names(&root.name, &delegate.name);
    out.matches = match (root.matches.is_empty(), delegate.matches.is_empty()) {
        (true, _) => delegate.matches.clone(),
        (false, true) => root.matches.clone(),
        (false, false) => {
            let both = root
                .matches
                .iter()
                .flat_map(|r| delegate.matches.iter().filter_map(move |d| intersect(r, d)));
            let both: Vec<_> = both.collect();
            if both.is_empty() {
                return None;
            }
            both
        }
    };
    out.rewrite = delegate.rewrite.clone().or_else(|| root.rewrite.clone());
    out.timeout = delegate.timeout.or(root.timeout);
    out.retries = delegate.retries.clone().or_else(|| root.retries.clone());
    out.fault = delegate.fault.clone().or_else(|| root.fault.clone());
    out.cors = delegate.cors.clone().or_else(|| root.cors.clone());
    if delegate.mirrors.is_empty() {
        out.mirrors.clone_from(&root.mirrors);
    }
    if delegate.headers == HeaderEdits::default() {
        out.headers = root.headers.clone();
    }
    if let HttpAction::Redirect(_) | HttpAction::Direct(_) = out.action {
        out.rewrite = None;
    }
    Some(out)
}

/// Both conditions at once; `None` when they exclude each other.
fn intersect(root: &HttpMatch, delegate: &HttpMatch) -> Option<HttpMatch> {
    fn one<T: PartialEq + Clone>(a: &Option<T>, b: &Option<T>) -> Option<Option<T>> {
        match (a, b) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => Some(a.clone().or_else(|| b.clone())),
        }
    }
    if root.uri.is_some()
        && delegate.uri.is_some()
        && root.ignore_uri_case != delegate.ignore_uri_case
    {
        return None;
    }
    let mut source_labels = root.source_labels.clone();
    for (k, v) in &delegate.source_labels {
        if source_labels
            .insert(k.clone(), v.clone())
            .is_some_and(|old| old != *v)
        {
            return None;
        }
    }
    let gateways = match (root.gateways.is_empty(), delegate.gateways.is_empty()) {
        (true, _) => delegate.gateways.clone(),
        (_, true) => root.gateways.clone(),
        _ => {
            let both = root
                .gateways
                .iter()
                .filter(|g| delegate.gateways.contains(g));
            let both: Vec<_> = both.cloned().collect();
            if both.is_empty() {
                return None;
            }
            both
        }
    };
    Some(HttpMatch {
        name: join_names(&root.name, &delegate.name),
        uri: narrower(&root.uri, &delegate.uri)?,
        ignore_uri_case: root.ignore_uri_case || delegate.ignore_uri_case,
        scheme: narrower(&root.scheme, &delegate.scheme)?,
        method: narrower(&root.method, &delegate.method)?,
        authority: narrower(&root.authority, &delegate.authority)?,
        headers: named(&root.headers, &delegate.headers)?,
        query_params: named(&root.query_params, &delegate.query_params)?,
        port: one(&root.port, &delegate.port)?,
        source_labels,
        source_namespace: one(&root.source_namespace, &delegate.source_namespace)?,
        gateways,
        stat_prefix: if delegate.stat_prefix.is_empty() {
            root.stat_prefix.clone()
        } else {
            delegate.stat_prefix.clone()
        },
        origin: delegate.origin.clone(),
    })
}

/// The narrower of two text conditions; `None` when they exclude each other.
/// Regular expressions cannot be intersected: they only meet their equals.
#[expect(
    clippy::option_option,
    reason = "outer: possible at all; inner: a condition or none"
)]
fn narrower(a: &Option<StringMatch>, b: &Option<StringMatch>) -> Option<Option<StringMatch>> {
    use StringMatch::{Exact, Prefix, Present};
    let (Some(a), Some(b)) = (a, b) else {
        return Some(a.clone().or_else(|| b.clone()));
    };
    match (a, b) {
        (a, b) if a == b => Some(Some(a.clone())),
        (Present, other) | (other, Present) => Some(Some(other.clone())),
        (Exact(e), Prefix(p)) | (Prefix(p), Exact(e)) if e.starts_with(&**p) => {
            Some(Some(Exact(e.clone())))
        }
        (Prefix(p), Prefix(q)) if p.starts_with(&**q) => Some(Some(Prefix(p.clone()))),
        (Prefix(p), Prefix(q)) if q.starts_with(&**p) => Some(Some(Prefix(q.clone()))),
        _ => None,
    }
}

/// All conditions of both lists; one name twice is narrowed.
fn named(a: &[NamedMatch], b: &[NamedMatch]) -> Option<Vec<NamedMatch>> {
    let mut out = a.to_vec();
    for m in b {
        match out
            .iter_mut()
            .find(|o| o.name == m.name && o.invert == m.invert)
        {
            Some(same) if m.invert && same.value != m.value => out.push(m.clone()),
            Some(same) => {
                same.value = narrower(&Some(same.value.clone()), &Some(m.value.clone()))??;
            }
            None => out.push(m.clone()),
        }
    }
    Some(out)
}
