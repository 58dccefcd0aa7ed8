//! The `local_ratelimit` filter at work.

use lateen_proxy_core::config::rate_limit::LocalRateLimit;
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::stats::Scope;

use super::local::LocalReply;
use super::mutate::{self, Side};
use super::record::{StreamRecord, now_ns};

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

/// Takes a token for a request; a reply refuses it.
pub(super) fn take(
    record: &mut StreamRecord,
    limit: &LocalRateLimit,
) -> Option<LocalReply<'static>> {
    let bucket = limit.bucket.as_ref()?;
    let random = record.random;
    if !limit.enabled.hit(random) {
        return None;
    }
    let worker = record.conn.worker.clone();
    let tag = "envoy.local_http_ratelimit_prefix";
    let scope = Scope::root().tag("", tag, &limit.stat_prefix);
    let count = |what: &str| {
        let stat = format!("http_local_rate_limit.{what}");
        worker.stats.named(&scope, &stat).inc();
    };
    count("enabled");
    if bucket.take(now_ns()) {
        count("ok");
        return None;
    }
    count("rate_limited");
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

/// Says in an answer what is left.
pub(super) fn tell(record: &mut StreamRecord, limit: &LocalRateLimit) {
    let Some(bucket) = limit.bucket.as_ref().filter(|_| limit.limit_headers) else {
        return;
    };
    let now = now_ns();
    let (left, wait) = (bucket.left(now), bucket.wait(now));
    let response = &mut record.response;
    for (name, value) in [
        ("x-ratelimit-limit", u64::from(bucket.most())),
        ("x-ratelimit-remaining", left.into()),
        ("x-ratelimit-reset", wait.as_secs_f64().ceil() as u64),
    ] {
        response.set(
            name.as_bytes(),
            itoa::Buffer::new().format(value).as_bytes(),
        );
    }
}
