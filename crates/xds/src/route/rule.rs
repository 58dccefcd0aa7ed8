//! The HTTP rules of one virtual service as routes, in order, up to the first that takes
//! everything: what stands behind it is never reached.

use lateen_model::route::{HttpAction, HttpMatch, HttpRoute};
use lateen_model::{Origin, VirtualService};
use lateen_xds_proto::envoy::config::route::v3::{Decorator, Route, route};

use super::{action, any_path, matching};
use crate::context::Context;
use crate::wire;

/// Where the rules are applied.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// `mesh`, or `namespace/name` of a gateway.
    pub gateway: &'a str,
    /// The port clients see: the service's or the server's.
    pub port: u16,
}

/// The routes of a virtual service at a place.
pub fn routes(cx: &Context<'_>, vs: &VirtualService, place: &Place<'_>) -> Vec<Route> {
    let mut out = Vec::new();
    for http in &vs.http {
        if http.matches.is_empty() {
            out.push(one(cx, vs, http, None, place));
            return out;
        }
        for m in &http.matches {
            let applies = m.applies_to(&cx.key.namespace, &cx.key.labels, place.gateway)
                && m.port.is_none_or(|p| p == place.port);
            if !applies {
                continue;
            }
            out.push(one(cx, vs, http, Some(m), place));
            if m.is_catch_all() {
                return out;
            }
        }
    }
    out
}

fn one(
    cx: &Context<'_>,
    vs: &VirtualService,
    http: &HttpRoute,
    m: Option<&HttpMatch>,
    place: &Place<'_>,
) -> Route {
    let mut r = Route {
        name: name(http, m),
        r#match: Some(m.map_or_else(any_path, matching::route_match)),
        metadata: metadata(&vs.origin),
        stat_prefix: m.map(|m| m.stat_prefix.to_string()).unwrap_or_default(),
        ..Route::default()
    };
    action::headers(&mut r, &http.headers);
    r.action = Some(match &http.action {
        HttpAction::Redirect(to) => route::Action::Redirect(action::redirect(to, place.port)),
        HttpAction::Direct(d) => route::Action::DirectResponse(action::direct(d)),
        HttpAction::Forward(to) => {
            let operation = to.first().map(|d| {
                let port = d.destination.port.unwrap_or(place.port);
                format!("{}:{port}/*", d.destination.host)
            });
            r.decorator = operation.map(|operation| Decorator {
                operation,
                propagate: None,
            });
            route::Action::Route(action::forward_to(cx, http, to, m, place))
        }
    });
    action::per_route_filters(cx, &mut r, http);
    r
}

/// `<rule>.<match>`, either part alone where the other is empty.
fn name(http: &HttpRoute, m: Option<&HttpMatch>) -> String {
    let part = m.map(|m| &*m.name).unwrap_or_default();
    match (&*http.name, part) {
        (rule, "") => rule.to_owned(),
        ("", part) => part.to_owned(),
        (rule, part) => format!("{rule}.{part}"),
    }
}

fn metadata(origin: &Origin) -> Option<lateen_xds_proto::envoy::config::core::v3::Metadata> {
    wire::istio_metadata(vec![("config", wire::text(origin.istio_config()))])
}
