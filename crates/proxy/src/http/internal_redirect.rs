//! Redirects of an upstream that are followed here: the request is turned towards where they lead
//! and served again from its first filter on, as a request with a record of its own.

use std::borrow::Cow;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::route::InternalRedirect;
use lateen_proxy_core::internal_redirect::{Passed, Target};
use lateen_proxy_core::rewrite;

use super::charge::Charge;
use super::head::Head;
use super::known::Known;
use super::record::now_ns;
use super::source::RequestBody;
use super::stream::{Chosen, Stream};
use crate::stats::rare::{ClusterEvent, HttpEvent};

impl Stream<'_> {
    /// Whether the answer in the record is followed instead of passed on; the request is turned
    /// towards its target then.
    pub(super) fn redirects(
        &mut self,
        policy: &InternalRedirect,
        body: &mut RequestBody<'_>,
        chosen: &Chosen,
    ) -> bool {
        // A request that is still coming, or was too long to keep, cannot go out again.
        let followed = body.complete
            && body.can_restart()
            && self.record.response.has(Known::Location)
            && match self.turn(policy, chosen) {
                Ok(()) => true,
                Err(why) => {
                    self.http.stats.events.inc(event(why));
                    false
                }
            };
        if let Some(cluster) = &self.record.cluster {
            cluster.stats.events.inc(match followed {
                true => ClusterEvent::upstream_internal_redirect_succeeded_total,
                false => ClusterEvent::upstream_internal_redirect_failed_total,
            });
        }
        if followed && self.record.response.status == 303 && !self.keeps_method() {
            // RFC 9110 section 15.4.4.
            self.record.request.set_method(b"GET");
            self.record.request.remove_known(Known::ContentLength);
            body.forget();
        }
        self.redirected = followed;
        followed
    }

    fn keeps_method(&self) -> bool {
        matches!(self.record.request.method(), b"GET" | b"HEAD")
    }

    /// Turns the request towards the target of the answer's `location`.
    fn turn(&mut self, policy: &InternalRedirect, chosen: &Chosen) -> Result<(), Passed> {
        let location = self.record.response.known(Known::Location);
        let location = location.unwrap_or_default().to_vec();
        // What the client says of its scheme does not open the way to another one.
        let https = self.record.request.scheme() == b"https" && self.record.conn.io.is_tls();
        let target = policy.leads(&location, https, self.hops.as_deref())?;
        let before = self.record.request.clone();
        let (route, host) = (self.record.route.clone(), self.record.virtual_host.clone());
        let agreed = self.agreed(policy, chosen, &target, https);
        self.record.route = route;
        self.record.virtual_host = host;
        if agreed.is_err() {
            self.record.request = before;
            return agreed;
        }
        let scheme: &[u8] = if https { b"https" } else { b"http" };
        let url = [scheme, b"://", before.authority(), before.path()].concat();
        let request = &mut self.record.request;
        request.set_known(Known::XEnvoyOriginalUrl, &url);
        Ok(())
    }

    /// Puts the target into the request and asks the route that it has then.
    fn agreed(
        &mut self,
        policy: &InternalRedirect,
        chosen: &Chosen,
        target: &Target<'_>,
        https: bool,
    ) -> Result<(), Passed> {
        let record = &mut *self.record;
        copy(policy, &record.response, &mut record.request);
        let scheme: &[u8] = if target.https { b"https" } else { b"http" };
        record.request.set_scheme(scheme);
        // As for a request that comes in: virtual hosts and rules see one form of a name.
        let port = Some(record.conn.local.port());
        let authority = rewrite::strip_host(&self.http.config, target.authority, port);
        record.request.set_authority(&authority);
        record.request.set_path(&target.path);
        let next = self.choose_route().ok_or(Passed::NoRoute)?;
        let hops = self.hops.get_or_insert_default();
        let (from, to): (&Name, &Name) = (&chosen.route.name, &next.route.name);
        match policy.agrees(hops, from, to, (https, target.https)) {
            true => Ok(()),
            false => Err(Passed::Predicate),
        }
    }

    /// Closes the record of the request that was redirected and begins that of the next.
    pub(super) fn begin_hop(&mut self, body: &mut RequestBody<'_>) {
        let now = now_ns();
        let record = &mut *self.record;
        let received = body.received;
        record.received += received;
        record.code = record.response.status;
        record.details = Cow::Borrowed("internal_redirect");
        record.charge = Charge::Nobody;
        record.times.end = now;
        let worker = record.conn.worker.clone();
        worker.close_stream(record, self.http);
        let (remote, internal, peer) = (record.remote, record.internal, record.peer);
        record.begin(record.protocol, now);
        record.times.request_end = now;
        (record.remote, record.internal, record.peer) = (remote, internal, peer);
        self.http.stats.cells.downstream_rq_active.add(1);
        self.chosen = None;
        self.cookies.clear();
        self.added.clear();
        self.tells_attempts = true;
        self.unedited = false;
        self.filtered = false;
        self.limits.clear();
        self.count();
        body.restart();
    }
}

/// Copies the headers of the answer that the policy names into the request.
fn copy(policy: &InternalRedirect, response: &Head, request: &mut Head) {
    for name in &policy.response_headers_to_copy {
        let name = name.as_bytes();
        request.remove(name);
        response.each(name, &mut |value| {
            request.add(name, value);
            true
        });
    }
}

fn event(why: Passed) -> HttpEvent {
    match why {
        Passed::BadLocation => HttpEvent::passthrough_internal_redirect_bad_location,
        Passed::UnsafeScheme => HttpEvent::passthrough_internal_redirect_unsafe_scheme,
        Passed::TooMany => HttpEvent::passthrough_internal_redirect_too_many_redirects,
        Passed::NoRoute => HttpEvent::passthrough_internal_redirect_no_route,
        Passed::Predicate => HttpEvent::passthrough_internal_redirect_predicate,
    }
}
