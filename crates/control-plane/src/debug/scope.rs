//! `/debug/sidecarz`: what one proxy may call and by which Sidecar object, as the generator
//! sees it, in the shape of Istio's sidecar scope.

use std::sync::Arc;

use lateen_model::sidecar::{EgressListener, IngressListener};
use lateen_model::{DestinationRule, Service, Sidecar};
use lateen_resources::Kind;
use lateen_xds::Context;
use serde_json::{Map, Value, json};

use super::pages::{outbound_mode, service};
use crate::store::ProxyView;

/// Istio's name for the scope of a proxy that no Sidecar object selects.
const DEFAULT: &str = "default-sidecar";

/// The scope in force for a proxy.
pub fn sidecarz(view: &ProxyView) -> Value {
    let cx = view.context();
    let c = &view.configuration;
    let sidecar = cx.sidecar.as_deref();
    let written = sidecar.and_then(|s| {
        let object = c.objects.get(Kind::Sidecar, &s.namespace, &s.name)?;
        Some(object.body.to_json())
    });
    json!({
        "version": c.version,
        "rootNamespace": &*cx.snapshot.mesh.root_namespace,
        "name": sidecar.map_or(DEFAULT, |s| &*s.name),
        "namespace": sidecar.map_or(&*cx.key.namespace, |s| &*s.namespace),
        "outboundTrafficPolicy": {"mode": outbound_mode(cx.outbound_policy())},
        "sidecar": written,
        "services": cx.services().iter().map(|s| service(s)).collect::<Vec<_>>(),
        "egressListeners": egress(&cx, sidecar),
        "ingressListeners": sidecar.map(|s| s.ingress.iter().map(ingress).collect::<Vec<_>>()),
        "destinationRules": rules(&cx),
        "notes": notes(sidecar),
    })
}

/// Imports by egress listener with the hosts each brings in. Without a Sidecar object, or
/// with one that lists none, everything exported to the namespace comes in.
fn egress(cx: &Context<'_>, sidecar: Option<&Sidecar>) -> Vec<Value> {
    let hosts = |of: &dyn Fn(&Service) -> bool| -> Vec<&str> {
        let seen = cx.services().iter().filter(|s| of(s));
        seen.map(|s| &*s.hostname).collect()
    };
    let listeners = sidecar.map(|s| s.egress.as_slice()).unwrap_or_default();
    if listeners.is_empty() {
        return vec![json!({"hosts": ["*/*"], "services": hosts(&|_| true)})];
    }
    let one = |l: &EgressListener| {
        let imports: Vec<String> = l
            .hosts
            .iter()
            .map(|h| format!("{}/{}", h.namespace.as_deref().unwrap_or("*"), h.host))
            .collect();
        let covered = |s: &Service| l.hosts.iter().any(|h| h.imports(&s.namespace, &s.hostname));
        let mut out = json!({"hosts": imports, "services": hosts(&covered)});
        if let Some((number, protocol)) = l.port {
            out["port"] = json!({"number": number, "protocol": protocol.as_str()});
        }
        if let Some(bind) = &l.bind {
            out["bind"] = json!(&**bind);
        }
        out
    };
    listeners.iter().map(one).collect()
}

fn ingress(l: &IngressListener) -> Value {
    json!({
        "port": {"number": l.port, "name": &*l.port_name, "protocol": l.protocol.as_str()},
        "bind": &*l.bind,
        "defaultEndpoint": &*l.default_endpoint,
    })
}

/// The destination rule in force for each service that has one, by host.
fn rules(cx: &Context<'_>) -> Map<String, Value> {
    let of = |s: &Arc<Service>| Some((s.hostname.to_string(), rule(cx.rule(s)?)));
    cx.services().iter().filter_map(of).collect()
}

fn rule(r: &DestinationRule) -> Value {
    let subsets: Vec<&str> = r.subsets.iter().map(|s| &*s.name).collect();
    json!({
        "name": &*r.name,
        "namespace": &*r.namespace,
        "host": &*r.host,
        "subsets": subsets,
    })
}

/// Where what is generated is less than what the object asks for.
fn notes(sidecar: Option<&Sidecar>) -> Vec<&'static str> {
    let mut out = Vec::new();
    let Some(s) = sidecar else { return out };
    if s.egress
        .iter()
        .any(|l| l.port.is_some() || l.bind.is_some())
    {
        out.push(
            "port and bind of egress listeners are not applied: their hosts are imported on \
             every port",
        );
    }
    if !s.ingress.is_empty() {
        out.push("ingress listeners are not applied: those of the services are generated");
    }
    out
}
