//! Redirects that are followed inside: `internal_redirect_policy` of a route.
use std::sync::Arc;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::route::{InternalRedirect, RedirectPredicate};
use lateen_xds_proto::envoy::config::core::v3::TypedExtensionConfig;
use lateen_xds_proto::envoy::config::route::v3 as pb;
use lateen_xds_proto::envoy::extensions::internal_redirect as predicates;

use super::common::{header_names, need};
use super::{type_name, typed, written};
use crate::error::{At, Result, list, refuse};

/// Status codes that may be followed.
const CODES: [u16; 5] = [301, 302, 303, 307, 308];

/// The policy of a route.
pub(super) fn internal_redirect(m: &pb::RouteAction) -> Result<Option<Arc<InternalRedirect>>> {
    if m.internal_redirect_action
        == pb::route_action::InternalRedirectAction::HandleInternalRedirect as i32
    {
        return refuse("is deprecated; use internal_redirect_policy")
            .at("internal_redirect_action");
    }
    let policy = m.internal_redirect_policy.as_ref();
    policy
        .map(decode)
        .transpose()
        .at("internal_redirect_policy")
}

fn decode(m: &pb::InternalRedirectPolicy) -> Result<Arc<InternalRedirect>> {
    let mut codes = list(
        &m.redirect_response_codes,
        "redirect_response_codes",
        |code| {
            let known = u16::try_from(*code)
                .ok()
                .filter(|code| CODES.contains(code));
            known.map_or_else(|| refuse("must be 301, 302, 303, 307 or 308"), Ok)
        },
    )?;
    if codes.is_empty() {
        codes.push(302);
    }
    if m.response_headers_to_copy.len() > 50 {
        return refuse("at most 50 are allowed").at("response_headers_to_copy");
    }
    let copied = header_names(&m.response_headers_to_copy, "response_headers_to_copy")?;
    if copied.iter().any(|name| written::is_reserved(name)) {
        return refuse(":-prefixed or host headers may not be copied")
            .at("response_headers_to_copy");
    }
    Ok(Arc::new(InternalRedirect {
        max_internal_redirects: m.max_internal_redirects.as_ref().map_or(1, |v| v.value),
        codes,
        allow_cross_scheme: m.allow_cross_scheme_redirect,
        response_headers_to_copy: copied,
        predicates: list(&m.predicates, "predicates", predicate)?,
    }))
}

fn predicate(m: &TypedExtensionConfig) -> Result<RedirectPredicate> {
    let any = need(m.typed_config.as_ref(), "typed_config")?;
    let name = type_name(any)?;
    Ok(match name.rsplit('.').next() {
        Some("PreviousRoutesConfig") => {
            let _: predicates::previous_routes::v3::PreviousRoutesConfig =
                typed(any).at("typed_config")?;
            RedirectPredicate::PreviousRoutes
        }
        Some("SafeCrossSchemeConfig") => {
            let _: predicates::safe_cross_scheme::v3::SafeCrossSchemeConfig =
                typed(any).at("typed_config")?;
            RedirectPredicate::SafeCrossScheme
        }
        Some("AllowListedRoutesConfig") => {
            let config: predicates::allow_listed_routes::v3::AllowListedRoutesConfig =
                typed(any).at("typed_config")?;
            let names = list(
                &config.allowed_route_names,
                "allowed_route_names",
                |name| match name.is_empty() {
                    true => refuse("must not be empty"),
                    false => Ok(Name::from(name.as_str())),
                },
            );
            RedirectPredicate::AllowListedRoutes(names.at("typed_config")?)
        }
        _ => return refuse(format!("`{name}` is not implemented")).at("typed_config"),
    })
}
