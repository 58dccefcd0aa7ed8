//! The `local_ratelimit` filter at work.

use lateen_proxy_core::access_log::Template;
use lateen_proxy_core::config::rate_limit::{LocalRateLimit, RateLimitRule, VirtualHostRules};
use lateen_proxy_core::config::route::{Forward, RouteAction};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::rate_limit::{Facts, Taken, descriptors};
use lateen_proxy_core::stats::Scope;

use super::local::LocalReply;
use super::mutate::{self, Side};
use super::record::now_ns;
use super::stream::{Chosen, Stream};

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

/// Takes the tokens of a request; a reply refuses it.
pub(super) fn take(
    stream: &mut Stream<'_>,
    limit: &LocalRateLimit,
    chosen: Option<&Chosen>,
) -> Option<LocalReply<'static>> {
    if limit.bucket.is_none() && limit.descriptors.is_empty() {
        return None;
    }
    let random = stream.record.random;
    if !limit.enabled.hit(random) {
        return None;
    }
    let worker = stream.record.conn.worker.clone();
    let tag = "envoy.local_http_ratelimit_prefix";
    let scope = Scope::root().tag("", tag, &limit.stat_prefix);
    let count = |what: &str| {
        let stat = format!("http_local_rate_limit.{what}");
        worker.stats.named(&scope, &stat).inc();
    };
    count("enabled");
    let taken = match limit.descriptors.is_empty() {
        true => limit.take(&[], now_ns()),
        false => by_descriptors(stream, limit, chosen),
    };
    if let Some(bucket) = taken.bucket.filter(|_| limit.limit_headers) {
        stream.limits.push((place(limit), bucket));
    }
    if taken.allowed {
        count("ok");
        return None;
    }
    count("rate_limited");
    let record = &mut *stream.record;
    if !limit.enforced.hit(random.rotate_left(16)) {
        mutate::apply(record, Side::Request, &limit.request_headers);
        return None;
    }
    count("enforced");
    let reply = LocalReply::new(limit.status, "local_rate_limited", "local_rate_limited");
    let mut reply = reply.flag(ResponseFlags::RATE_LIMITED);
    for edit in &limit.response_headers {
        let mut value = Vec::new();
        edit.value.write_header(record, &mut value);
        reply.own.push((edit.name.as_bytes().to_vec(), value));
    }
    if limit.resource_exhausted {
        reply.grpc = Some(RESOURCE_EXHAUSTED);
    }
    Some(reply)
}

/// Takes the tokens of what the rules make of a request.
fn by_descriptors(stream: &Stream<'_>, limit: &LocalRateLimit, chosen: Option<&Chosen>) -> Taken {
    let record = &*stream.record;
    let forward = chosen.and_then(|chosen| match &chosen.route.action {
        RouteAction::Forward(forward) => Some((&**forward, chosen)),
        _ => None,
    });
    let destination = forward.and_then(|(forward, chosen)| stream.cluster_name(forward, chosen));
    let facts = Facts {
        headers: &record.request,
        remote: record.remote.ip(),
        source_cluster: &record.conn.worker.mesh.own.service,
        destination_cluster: destination.as_deref(),
        metadata: &|namespace| record.dynamic_metadata(namespace),
        route_metadata: &|namespace| chosen?.route.metadata.get(namespace),
        write: &|template: &Template| {
            let mut text = Vec::new();
            template.write_header(record, &mut text);
            text
        },
    };
    let asked = match (limit.rules.is_empty(), forward) {
        (false, _) => descriptors(&limit.rules, limit.stage, &facts),
        (true, Some((forward, chosen))) => {
            descriptors(rules(limit, forward, chosen), limit.stage, &facts)
        }
        (true, None) => Default::default(),
    };
    limit.take(&asked, now_ns())
}

/// The rules of a route, and those of its virtual host where they hold.
fn rules<'a>(
    limit: &LocalRateLimit,
    forward: &'a Forward,
    chosen: &'a Chosen,
) -> impl Iterator<Item = &'a RateLimitRule> {
    let hosts = match limit.virtual_host_rules {
        _ if forward.include_vh_rate_limits => true,
        VirtualHostRules::Include => true,
        VirtualHostRules::Override => forward.rate_limits.is_empty(),
        VirtualHostRules::Ignore => false,
    };
    let hosts = hosts.then_some(&chosen.host.rate_limits);
    forward
        .rate_limits
        .iter()
        .chain(hosts.into_iter().flatten())
}

/// What tells settings apart while a request lasts.
fn place(limit: &LocalRateLimit) -> usize {
    std::ptr::from_ref(limit).addr()
}

/// Says in an answer what is left.
pub(super) fn tell(stream: &mut Stream<'_>, limit: &LocalRateLimit) {
    let place = place(limit);
    let limits = &stream.limits;
    let Some((_, bucket)) = limits.iter().find(|(of, _)| *of == place) else {
        return;
    };
    let now = now_ns();
    let (left, wait) = (bucket.left(now), bucket.wait(now));
    let response = &mut stream.record.response;
    for (name, value) in [
        ("x-ratelimit-limit", u64::from(bucket.most())),
        ("x-ratelimit-remaining", left.into()),
        ("x-ratelimit-reset", wait.as_secs()),
    ] {
        response.set(
            name.as_bytes(),
            itoa::Buffer::new().format(value).as_bytes(),
        );
    }
}
