//! The HTTP filters of the chain, in order on the request. A closed set: what
//! the configuration can name is here.

use std::time::Duration;

use lateen_proxy_core::config::FractionalPercent;
use lateen_proxy_core::config::http_filter::{
    AbortCode, Cors, Fault, FaultValue, HeaderEdit, HeaderMutationFilter, HttpFilter,
    HttpFilterConfig, PerFilterConfig, per_filter,
};
use lateen_proxy_core::config::route::RouteConfiguration;
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::local_reply::Situation;

use super::filter_state::FilterState;
use super::known::Known;
use super::local::LocalReply;
use super::mutate::{self, Side};
use super::record::StreamRecord;
use super::responder::Responder;
use super::source::RequestBody;
use super::stream::{Chosen, Stream};
use super::{access, ext_authz, jwt, rate_limit};
use crate::stats::rare::{CorsEvent, FaultEvent, Rare};

/// Whether no level of a route says anything of filters, which is so of most.
fn is_silent(chosen: Option<&Chosen>) -> bool {
    chosen.is_none_or(|c| {
        let outer = [&c.route.per_filter, &c.host.per_filter, &c.table.per_filter];
        let weighted = c.weighted.as_ref().map(|w| &w.per_filter);
        let mut levels = outer.into_iter().chain(weighted);
        levels.all(|level| level.own().is_none())
    })
}

/// The setting of a filter for this request: `None` = it does not run,
/// `Some(None)` = with its own configuration. `silent` = [`is_silent`].
#[inline]
fn setting<'a>(
    filter: &HttpFilter,
    chosen: Option<&'a Chosen>,
    silent: bool,
) -> Option<Option<&'a PerFilterConfig>> {
    match silent {
        true => (!filter.disabled).then_some(None),
        false => said(filter, chosen),
    }
}

/// The setting by what the levels of the route say.
fn said<'a>(
    filter: &HttpFilter,
    chosen: Option<&'a Chosen>,
) -> Option<Option<&'a PerFilterConfig>> {
    let weighted = chosen.and_then(|c| c.weighted.as_ref());
    let weighted = weighted.map(|w| &w.per_filter);
    let outer = chosen.map(|c| {
        let levels = [&c.route.per_filter, &c.host.per_filter];
        levels.into_iter().chain([&c.table.per_filter])
    });
    let levels = weighted.into_iter().chain(outer.into_iter().flatten());
    match per_filter(levels.map(|list| &**list), &filter.name) {
        Some(PerFilterConfig::Disabled) => None,
        None if filter.disabled => None,
        Some(PerFilterConfig::Enabled) => Some(None),
        own => Some(own),
    }
}

/// Why a request goes no further.
pub(super) enum Stop {
    /// It is answered.
    Reply(Box<LocalReply<'static>>),
    /// The client went away.
    Gone,
}

impl Stop {
    /// With this answer.
    pub(super) fn reply(reply: LocalReply<'static>) -> Self {
        Self::Reply(Box::new(reply))
    }
}

/// Runs the filters on a request, in their order. One that waits for others sees to it that the
/// client is still there (`Stream::pending`); one that clears the route has it chosen anew.
pub(super) async fn on_request(
    stream: &mut Stream<'_>,
    body: &mut RequestBody<'_>,
    out: &mut Responder<'_>,
    chosen: &mut Option<Chosen>,
) -> Result<(), Stop> {
    let http = stream.http;
    let config = &http.config;
    let mut silent = is_silent(chosen.as_ref());
    for place in &http.on_request {
        let (filter, state) = (&config.http_filters[*place], &http.filters[*place]);
        let own = setting(filter, chosen.as_ref(), silent);
        if let FilterState::Jwt(state) = state {
            let own = match own {
                // Off: what it alone may say is still not a client's to say.
                None => Some(&None),
                Some(Some(PerFilterConfig::Jwt(own))) => Some(own),
                Some(_) => None,
            };
            // Large, and most chains have none: boxed, it is no part of every stream's task.
            if Box::pin(jwt::authenticate(stream, body, out, state, own)).await? {
                *chosen = stream.choose_route();
                silent = is_silent(chosen.as_ref());
                stream.chosen.clone_from(chosen);
            }
            continue;
        }
        let Some(own) = own else {
            continue;
        };
        if let FilterState::ExtAuthz(state) = state {
            // As in Envoy, nobody is asked about what goes nowhere.
            let Some(route) = chosen.as_ref() else {
                continue;
            };
            let own = match own {
                Some(PerFilterConfig::ExtAuthz(own)) => Some(&**own),
                _ => None,
            };
            let upstream = stream.named_cluster(route);
            let asked = ext_authz::check(stream, body, out, state, own, upstream);
            if Box::pin(asked).await? {
                *chosen = stream.choose_route();
                silent = is_silent(chosen.as_ref());
                stream.chosen.clone_from(chosen);
            }
            continue;
        }
        let reply = match (&filter.config, own) {
            (_, Some(PerFilterConfig::Fault(fault))) => inject(stream, body, out, fault).await?,
            // As Istio has it for routes to set: most requests meet no fault.
            (HttpFilterConfig::Fault(fault), _)
                if fault.delay.is_none() && fault.abort.is_none() =>
            {
                None
            }
            (HttpFilterConfig::Fault(fault), _) => inject(stream, body, out, fault).await?,
            (_, Some(PerFilterConfig::RateLimit(limit)))
            | (HttpFilterConfig::RateLimit(limit), _) => {
                rate_limit::take(stream, limit, chosen.as_ref())
            }
            (_, Some(PerFilterConfig::Cors(cors))) => preflight(stream, cors),
            (HttpFilterConfig::HeaderMutation(edits), own) => {
                let route = own.and(chosen.as_ref());
                edit_levels(stream.record, Side::Request, edits, route, &filter.name);
                None
            }
            (_, Some(PerFilterConfig::Rbac(rbac))) => {
                let table = table_of(chosen.as_ref());
                let rbac = rbac.as_deref();
                access::judge(stream.record, rbac, None, table, &config.stat_prefix)
            }
            (HttpFilterConfig::Rbac(rbac), _) => {
                let table = table_of(chosen.as_ref());
                let counters = match state {
                    FilterState::Rbac(counters) => Some(&**counters),
                    _ => None,
                };
                access::judge(
                    stream.record,
                    Some(rbac),
                    counters,
                    table,
                    &config.stat_prefix,
                )
            }
            _ => None,
        };
        if let Some(reply) = reply {
            return Err(Stop::reply(reply));
        }
    }
    Ok(())
}

/// The route table that a request was matched with.
fn table_of(chosen: Option<&Chosen>) -> Option<&RouteConfiguration> {
    chosen.map(|chosen| &*chosen.table)
}

/// Whether a filter may have something to say before a request is forwarded.
pub(super) fn sees_requests(config: &HttpFilterConfig) -> bool {
    !matches!(
        config,
        HttpFilterConfig::Router(_)
            | HttpFilterConfig::GrpcStats(_)
            | HttpFilterConfig::IstioStats(_)
            | HttpFilterConfig::IstioAlpn(_)
            | HttpFilterConfig::PeerMetadata(_)
    )
}

/// Whether a filter may change the head of a response.
pub(super) fn sees_responses(config: &HttpFilterConfig) -> bool {
    matches!(
        config,
        HttpFilterConfig::Cors
            | HttpFilterConfig::HeaderMutation(_)
            | HttpFilterConfig::RateLimit(_)
    )
}

/// Runs the filters on a response head.
pub(super) fn on_response(stream: &mut Stream<'_>, chosen: Option<&Chosen>) {
    let http = stream.http;
    let silent = is_silent(chosen);
    for place in http.on_response.iter().rev() {
        let filter = &http.config.http_filters[*place];
        let Some(own) = setting(filter, chosen, silent) else {
            continue;
        };
        match (&filter.config, own) {
            (_, Some(PerFilterConfig::Cors(cors))) => allow_origin(stream.record, cors),
            (HttpFilterConfig::HeaderMutation(edits), own) => {
                let route = own.and(chosen);
                edit_levels(stream.record, Side::Response, edits, route, &filter.name);
            }
            (_, Some(PerFilterConfig::RateLimit(limit))) => rate_limit::tell(stream, limit),
            (HttpFilterConfig::RateLimit(limit), _) => rate_limit::tell(stream, limit),
            _ => {}
        }
    }
}

/// The filter's own edits, then those of every level of the route that has some; the last one
/// wins where they write the same.
fn edit_levels(
    record: &mut StreamRecord,
    side: Side,
    own: &HeaderMutationFilter,
    chosen: Option<&Chosen>,
    filter: &str,
) {
    edit(record, side, own);
    let Some(chosen) = chosen else {
        return;
    };
    let mut levels = [
        chosen.weighted.as_ref().map(|w| &w.per_filter),
        Some(&chosen.route.per_filter),
        Some(&chosen.host.per_filter),
        Some(&chosen.table.per_filter),
    ];
    if own.most_specific_wins {
        levels.reverse();
    }
    for level in levels.into_iter().flatten() {
        let set = per_filter([&**level], filter);
        if let Some(PerFilterConfig::HeaderMutation(edits)) = set {
            edit(record, side, edits);
        }
    }
}

fn edit(record: &mut StreamRecord, side: Side, edits: &HeaderMutationFilter) {
    let edits = match side {
        Side::Request => &edits.request,
        Side::Response => &edits.response,
    };
    apply_edits(record, side, edits);
}

/// Edits one head, one edit after the other.
pub(super) fn apply_edits(record: &mut StreamRecord, side: Side, edits: &[HeaderEdit]) {
    for edit in edits {
        match edit {
            HeaderEdit::Remove(name) if side == Side::Request => {
                record.request.remove(name.as_bytes());
            }
            HeaderEdit::Remove(name) => record.response.remove(name.as_bytes()),
            HeaderEdit::RemoveMatching(names) => {
                let head = match side {
                    Side::Request => &mut record.request,
                    Side::Response => &mut record.response,
                };
                head.remove_where(|name, _| names.matches(name));
            }
            HeaderEdit::Write(write) => mutate::apply(record, side, std::slice::from_ref(write)),
        }
    }
}

/// A fault that is under way.
struct ActiveFault<'a>(&'a Rare<FaultEvent>);

impl<'a> ActiveFault<'a> {
    fn new(events: &'a Rare<FaultEvent>) -> Self {
        events.raise(FaultEvent::active_faults, 1);
        Self(events)
    }
}

impl Drop for ActiveFault<'_> {
    fn drop(&mut self) {
        self.0.raise(FaultEvent::active_faults, -1);
    }
}

/// Delays and aborts.
async fn inject(
    stream: &mut Stream<'_>,
    body: &mut RequestBody<'_>,
    out: &mut Responder<'_>,
    fault: &Fault,
) -> Result<Option<LocalReply<'static>>, Stop> {
    let request = &stream.record.request;
    if !fault.headers.iter().all(|m| m.matches(request)) {
        return Ok(None);
    }
    let number = |name: Known| -> Option<u64> {
        std::str::from_utf8(request.known(name)?)
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let asked_delay = number(Known::XEnvoyFaultDelayRequest);
    let asked_abort = number(Known::XEnvoyFaultAbortRequest);
    // A request may lower the configured share of header-driven faults.
    let share = |percentage: FractionalPercent, by_header: bool, name: &[u8]| {
        let asked = request.first(name).filter(|_| by_header);
        let asked = asked.and_then(|v| std::str::from_utf8(v).ok()?.trim().parse::<u32>().ok());
        FractionalPercent {
            numerator: asked.map_or(percentage.numerator, |a| a.min(percentage.numerator)),
            ..percentage
        }
    };
    let delays = fault.delay.as_ref().map(|delay| {
        let by_header = delay.delay == FaultValue::Header;
        let name = b"x-envoy-fault-delay-request-percentage";
        share(delay.percentage, by_header, name)
    });
    let aborts = fault.abort.as_ref().map(|abort| {
        let by_header = abort.abort == FaultValue::Header;
        let name = b"x-envoy-fault-abort-request-percentage";
        share(abort.percentage, by_header, name)
    });
    let random = stream.record.random;
    if let Some(delay) = &fault.delay
        && delays.is_some_and(|share| share.hit(random))
    {
        let wait = match &delay.delay {
            FaultValue::Fixed(wait) => Some(*wait),
            FaultValue::Header => asked_delay.map(Duration::from_millis),
        };
        if let Some(wait) = wait {
            stream.record.flags.set(ResponseFlags::DELAY_INJECTED);
            let http = stream.http;
            http.stats.fault().inc(FaultEvent::delays_injected);
            let _active = ActiveFault::new(http.stats.fault());
            let waited = stream.timer.sleep(wait);
            stream.pending(body, out, waited).await.ok_or(Stop::Gone)?;
        }
    }
    let aborts = aborts.is_some_and(|share| share.hit(random.rotate_left(32)));
    let abort = fault.abort.as_ref().filter(|_| aborts);
    let code = abort.and_then(|abort| match &abort.abort {
        FaultValue::Fixed(code) => Some(*code),
        FaultValue::Header => {
            let status = u16::try_from(asked_abort?).ok();
            let valid = status.filter(|s| (200..600).contains(s));
            valid.map(AbortCode::Http)
        }
    });
    let Some(code) = code else {
        return Ok(None);
    };
    stream.http.stats.fault().inc(FaultEvent::aborts_injected);
    let mut reply = LocalReply::from(Situation::FAULT_ABORT);
    match code {
        AbortCode::Http(status) => reply = reply.status(status),
        AbortCode::Grpc(status) => {
            reply = reply.status(200);
            reply.grpc = Some(status);
        }
    }
    Ok(Some(reply))
}

fn origin_allowed(record: &StreamRecord, cors: &Cors) -> bool {
    let origin = record.request.known(Known::Origin);
    origin.is_some_and(|o| cors.allow_origins.iter().any(|m| m.matches(o)))
}

/// Answers a CORS preflight.
fn preflight(stream: &mut Stream<'_>, cors: &Cors) -> Option<LocalReply<'static>> {
    let request = &stream.record.request;
    let origin = request.known(Known::Origin).filter(|o| !o.is_empty())?;
    let random = stream.record.random;
    let enforced = cors.enabled.hit(random);
    if !enforced && !cors.shadow_enabled.hit(random) {
        return None;
    }
    let allowed = origin_allowed(stream.record, cors);
    stream.http.stats.cors().inc(match allowed {
        true => CorsEvent::origin_valid,
        false => CorsEvent::origin_invalid,
    });
    let asked = request.known(Known::AccessControlRequestMethod);
    let asks = request.method() == b"OPTIONS" && asked.is_some_and(|m| !m.is_empty());
    if !enforced || !asks {
        return None;
    }
    if !allowed && cors.forward_not_matching_preflights {
        return None;
    }
    let origin = origin.to_vec();
    let private = cors.allow_private_network_access
        && request.first(b"access-control-request-private-network") == Some(b"true");
    let mut reply = LocalReply::new(200, "", "cors_response");
    // Without its origin the rest allows nothing.
    if allowed {
        reply = reply.header("access-control-allow-origin", origin);
    }
    if cors.allow_credentials {
        reply = reply.header("access-control-allow-credentials", b"true".as_slice());
    }
    for (name, value) in [
        ("access-control-allow-methods", &cors.allow_methods),
        ("access-control-allow-headers", &cors.allow_headers),
        ("access-control-max-age", &cors.max_age),
    ] {
        if !value.is_empty() {
            reply = reply.header(name, value.as_bytes());
        }
    }
    if private {
        reply = reply.header("access-control-allow-private-network", b"true".as_slice());
    }
    Some(reply)
}

fn allow_origin(record: &mut StreamRecord, cors: &Cors) {
    if !cors.enabled.hit(record.random) || !origin_allowed(record, cors) {
        return;
    }
    let Some(origin) = record.request.known(Known::Origin).map(<[u8]>::to_vec) else {
        return;
    };
    record
        .response
        .set_known(Known::AccessControlAllowOrigin, &origin);
    if cors.allow_credentials {
        record
            .response
            .set_known(Known::AccessControlAllowCredentials, b"true");
    }
    if !cors.expose_headers.is_empty() {
        let exposed = cors.expose_headers.as_bytes();
        record
            .response
            .set_known(Known::AccessControlExposeHeaders, exposed);
    }
}
