//! The life of one request, read top-down: clean the headers, find the route,
//! run the filters, then answer here or forward; the record is closed at the
//! end whatever happened.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use lateen_proxy_core::config::http_connection_manager::{ServerHeader, Underscores};
use lateen_proxy_core::config::http_filter::{HttpFilterConfig, Router};
use lateen_proxy_core::config::istio::{IstioStats, PeerMetadata};
use lateen_proxy_core::config::route::{ClusterSpecifier, Forward, RouteAction, WeightedCluster};
use lateen_proxy_core::config::{
    HeaderMutations, HttpConnectionManager, Name, Route, RouteConfiguration, RouteSource,
    VirtualHost,
};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::framing::BodyLength;
use lateen_proxy_core::internal_redirect::Hops;
use lateen_proxy_core::local_reply::Situation;
use lateen_proxy_core::overload::Action;
use lateen_proxy_core::path::{self, Normalized};
use lateen_proxy_core::router::Request;
use lateen_proxy_core::token_bucket::TokenBucket;
use lateen_proxy_core::{hash_policy, rewrite};
use lateen_proxy_xds::authz::HeaderWrite;

use super::filter_state::FilterState;
use super::filters::Stop;
use super::grpc_stats::GrpcState;
use super::head::Line;
use super::known::Known;
use super::local::{self, LocalReply};
use super::mutate::{self, Side};
use super::reader::BodyReader;
use super::record::{Protocol, StreamRecord, now_ns};
use super::responder::Responder;
use super::source::RequestBody;
use super::{ext_authz, filters, peers, sanitize, trace};
use crate::http1::Reject;
use crate::http2::Reason;
use crate::io::Timer;
use crate::logger;
use crate::stats::rare::HttpEvent;
use crate::stats::{HttpStats, PlaceStats, Stats};
use crate::upstream::ClusterState;

/// A connection manager at work in one connection.
#[derive(Debug)]
pub struct HttpContext {
    /// As configured.
    pub config: Arc<HttpConnectionManager>,
    /// The router's options.
    pub router: Router,
    /// Statistics.
    pub stats: Rc<HttpStats>,
    /// Those of the listener it is in, where it is in one.
    pub place: Option<Rc<PlaceStats>>,
    /// Istio's metrics, where they are configured.
    pub telemetry: Option<Arc<IstioStats>>,
    /// Istio's exchange of who the peers are, where it is configured.
    pub peers: Option<Arc<PeerMetadata>>,
    /// The `server` line of answers.
    pub server: Line,
    /// Counts gRPC calls, where it is configured.
    pub grpc: Option<Rc<GrpcState>>,
    /// What filters keep here, in their order.
    pub filters: Vec<FilterState>,
    /// The places of the filters that look at requests.
    pub on_request: Vec<usize>,
    /// The places of the filters that look at responses.
    pub on_response: Vec<usize>,
}

impl HttpContext {
    /// The context of a connection manager.
    pub fn new(config: Arc<HttpConnectionManager>, stats: &Stats) -> Self {
        let find = |wanted: fn(&HttpFilterConfig) -> bool| {
            let filters = config.http_filters.iter().filter(|f| !f.disabled);
            filters.map(|f| &f.config).find(|c| wanted(c)).cloned()
        };
        let telemetry = match find(|c| matches!(c, HttpFilterConfig::IstioStats(_))) {
            Some(HttpFilterConfig::IstioStats(stats)) => Some(stats),
            _ => None,
        };
        let peers = match find(|c| matches!(c, HttpFilterConfig::PeerMetadata(_))) {
            Some(HttpFilterConfig::PeerMetadata(peers)) => Some(peers),
            _ => None,
        };
        let places = |sees: fn(&HttpFilterConfig) -> bool| {
            let all = config.http_filters.iter().enumerate();
            all.filter(|(_, filter)| sees(&filter.config))
                .map(|(place, _)| place)
                .collect()
        };
        let http = stats.http(&config.stat_prefix);
        // Shown before the first request.
        let named = |wanted: fn(&HttpFilterConfig) -> bool| {
            let mut filters = config.http_filters.iter();
            filters.any(|f| wanted(&f.config))
        };
        http.tracing();
        if named(|c| matches!(c, HttpFilterConfig::Cors)) {
            http.cors();
        }
        if named(|c| matches!(c, HttpFilterConfig::Fault(_))) {
            http.fault();
        }
        let filters = config.http_filters.iter();
        let filters = filters.map(|f| FilterState::new(f, &config.stat_prefix, stats));
        let grpc = match find(|c| matches!(c, HttpFilterConfig::GrpcStats(_))) {
            Some(HttpFilterConfig::GrpcStats(grpc)) => Some(Rc::new(GrpcState::new(grpc))),
            _ => None,
        };
        Self {
            filters: filters.collect(),
            on_request: places(filters::sees_requests),
            on_response: places(filters::sees_responses),
            grpc,
            telemetry,
            peers,
            router: config.router(),
            server: Line::new(Known::Server, config.server_name.as_bytes()),
            stats: http,
            place: None,
            config,
        }
    }
}

/// What the codec says of a request beside its head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asks {
    /// Wants to leave HTTP.
    pub upgrade: bool,
    /// Waits for a 100 before it sends its body.
    pub expect_continue: bool,
    /// Refused by a rule of the connection manager.
    pub refused: Option<Reject>,
}

/// One request on its way.
#[derive(Debug)]
pub struct Stream<'c> {
    /// The connection manager.
    pub http: &'c HttpContext,
    /// What happened so far.
    pub record: &'c mut StreamRecord,
    /// The connection's or stream's deadline.
    pub timer: &'c Timer,
    /// Where it goes, once that is known.
    pub(super) chosen: Option<Chosen>,
    /// Cookies that the response sets (made by hash policies).
    pub(super) cookies: Vec<String>,
    /// Headers that the response gets (from an authorisation service).
    pub(super) added: Vec<HeaderWrite>,
    /// The client waits for a 100 before it sends its body.
    pub(super) expects: bool,
    /// Whether the whole request has arrived. An answer that comes earlier ends
    /// an HTTP/1 connection: what is left would be taken for the next request.
    pub(super) complete: bool,
    /// Whether the answer may tell how many tries there were.
    pub(super) tells_attempts: bool,
    /// The answer is not the route's: its edits are not for it.
    pub(super) unedited: bool,
    /// The filters have seen the request.
    pub(super) filtered: bool,
    /// The buckets that took the request, by the place of their filter's settings in memory, where
    /// answers tell of them.
    pub(super) limits: Vec<(usize, Arc<TokenBucket>)>,
    /// The redirects that were followed; most requests follow none.
    pub(super) hops: Option<Box<Hops>>,
    /// The answer leads elsewhere: the request is served once more.
    pub(super) redirected: bool,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) table: Arc<RouteConfiguration>,
    pub(super) host: Arc<VirtualHost>,
    pub(super) route: Arc<Route>,
    pub(super) weighted: Option<Arc<WeightedCluster>>,
}

impl Chosen {
    /// The header edits of those levels that have some, in their order.
    pub(super) fn edits(&self) -> [Option<&HeaderMutations>; 4] {
        let mut levels = [
            self.weighted.as_ref().and_then(|w| w.headers.own()),
            self.route.headers.own(),
            self.host.headers.own(),
            self.table.headers.own(),
        ];
        if self.table.most_specific_header_mutations_wins {
            levels.reverse();
        }
        levels
    }
}

impl<'c> Stream<'c> {
    /// A request whose head is in the record.
    pub fn new(http: &'c HttpContext, record: &'c mut StreamRecord, timer: &'c Timer) -> Self {
        Self {
            http,
            record,
            timer,
            chosen: None,
            cookies: Vec::new(),
            added: Vec::new(),
            expects: false,
            complete: false,
            tells_attempts: true,
            unedited: false,
            filtered: false,
            limits: Vec::new(),
            hops: None,
            redirected: false,
        }
    }
}

impl Stream<'_> {
    /// Serves the request. Afterwards the responder knows whether the
    /// connection must end.
    pub async fn serve(&mut self, body: BodyReader<'_>, out: &mut Responder<'_>, asks: Asks) {
        self.count();
        let mut body = RequestBody::new(body);
        body.length = BodyLength::told(self.record.request.known(Known::ContentLength));
        self.complete = body.complete;
        if self.complete {
            self.record.times.request_end = now_ns();
        }
        logger::request(self.record, self.complete);
        loop {
            self.answer(&mut body, out, asks).await;
            if !std::mem::take(&mut self.redirected) {
                break;
            }
            self.begin_hop(&mut body);
        }
        self.record.received += body.received;
        self.record.times.end = now_ns();
        if !self.complete && self.record.code != 0 {
            self.http.stats.answered_early(self.record.flags);
        }
        // A body nobody read would be taken for the next request.
        if !body.reader.is_done() {
            out.set_close();
        }
    }

    /// Counts a request.
    pub(super) fn count(&self) {
        let cells = &self.http.stats.cells;
        cells.downstream_rq_total.inc();
        match self.record.protocol {
            Protocol::Http2 => cells.downstream_rq_http2_total.inc(),
            _ => cells.downstream_rq_http1_total.inc(),
        }
    }

    async fn answer(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        mut asks: Asks,
    ) {
        let connect = self.record.request.method() == b"CONNECT";
        asks.upgrade |= connect;
        // Of one that follows a redirect the body has come.
        asks.expect_continue &= self.hops.is_none();
        if asks.expect_continue && self.http.config.proxy_100_continue {
            // The upstream says whether it goes on.
            let name = Known::Expect;
            self.record.request.set_known(name, b"100-continue");
        } else {
            self.expects = asks.expect_continue;
        }
        let http = self.http;
        // Of one that follows a redirect the headers have been cleaned.
        let first = self.hops.is_none();
        if first && !self.underscores_pass() {
            out.set_close();
            // The codec refuses it: the log shows no request.
            self.record.request.clear();
            if out.is_h2() {
                self.record
                    .flags
                    .set(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
                self.record.details = Cow::Borrowed("http2.unexpected_underscore");
                return out.abort(Reason::INTERNAL_ERROR);
            }
            let reply = LocalReply::new(400, "Bad Request", "http1.unexpected_underscore");
            let flag = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
            return self.reply(out, reply.flag(flag)).await;
        }
        if first && self.record.conn.sheds_requests() {
            let events = &http.stats.events;
            events.inc(HttpEvent::downstream_rq_overload_close);
            if asks.upgrade {
                out.set_close();
            }
            return self.reply(out, Situation::OVERLOAD.into()).await;
        }
        if let Some(refused) = asks.refused {
            if refused.status == 400 {
                out.set_close();
            }
            return self
                .reply(out, LocalReply::new(refused.status, "", refused.details))
                .await;
        }
        if first {
            let edits = &http.config.early_edits;
            filters::apply_edits(self.record, Side::Request, edits);
            if let Some(status) = sanitize::request(self.record, &http.config) {
                let reply = LocalReply::new(status, "", "rejecting_because_detection_failed");
                return self.reply(out, reply).await;
            }
        }
        if let Some(peers) = http.peers.as_ref().filter(|_| first) {
            peers::of_request(self.record, peers);
        }
        if let Some(reply) = self.normalize_path() {
            if reply.status == 400 {
                out.set_close();
            }
            return self.reply(out, reply).await;
        }
        let mut chosen = self.choose_route();
        trace::begin(self, chosen.as_ref());
        self.chosen.clone_from(&chosen);
        if let Some(chosen) = &chosen {
            let input = || self.redirect_input();
            let location = rewrite::require_tls(&chosen.host, input, self.record.internal);
            if let Some(location) = location {
                http.stats.cells.rq_direct_response.inc();
                self.unedited = true;
                let reply = LocalReply::new(301, "", "direct_response");
                return self.reply(out, reply.header("location", location)).await;
            }
            if asks.upgrade && !self.may_upgrade(&chosen.route) {
                self.name_cluster(chosen);
                out.set_close();
                return self.reply(out, Situation::UPGRADE_FAILED.into()).await;
            }
            if asks.upgrade && !connect && !out.is_h2() && !body.is_empty() {
                // Where its body ends and the tunnel begins must not be a matter
                // of opinion: the upstream would read one as the other.
                self.name_cluster(chosen);
                out.set_close();
                let reply = LocalReply::new(400, "", "upgrade_with_body");
                return self.reply(out, reply).await;
            }
        }
        // Filters judge a request without a route too: only who passes learns that there is none.
        self.filtered = true;
        match filters::on_request(self, body, out, &mut chosen).await {
            Ok(()) => {}
            Err(Stop::Gone) => return self.client_gone(out),
            Err(Stop::Reply(reply)) => {
                if let Some(chosen) = &chosen {
                    self.name_cluster(chosen);
                }
                return self.reply(out, *reply).await;
            }
        }
        match chosen {
            Some(chosen) => self.act(body, out, &chosen, asks).await,
            None => {
                http.stats.cells.rq_total.inc();
                if connect {
                    out.set_close();
                }
                self.reply(out, Situation::NO_ROUTE.into()).await;
            }
        }
    }

    /// Does what the route says.
    async fn act(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        chosen: &Chosen,
        asks: Asks,
    ) {
        let http = self.http;
        http.stats.cells.rq_total.inc();
        match &chosen.route.action {
            RouteAction::DirectResponse(direct) => {
                http.stats.cells.rq_direct_response.inc();
                let text = std::str::from_utf8(&direct.body).unwrap_or_default();
                let mut reply = LocalReply::new(direct.status, text, "direct_response");
                reply.body = Cow::Borrowed(&direct.body);
                if let Some(format) = &direct.format {
                    reply.body = Cow::Owned(self.formatted(&format.format, &direct.body));
                    // Of plain text the type is said last, as where nothing is formatted.
                    if &*format.content_type != local::PLAIN {
                        reply = reply.header("content-type", format.content_type.as_bytes());
                    }
                }
                self.reply(out, reply).await;
            }
            RouteAction::Redirect(redirect) => {
                // Counted as what it is to the router: an answer of the route's own.
                http.stats.cells.rq_direct_response.inc();
                let location =
                    rewrite::location(redirect, &chosen.route.matching, self.redirect_input());
                let reply = LocalReply::new(redirect.code, "", "direct_response");
                self.reply(out, reply.header("location", location)).await;
            }
            RouteAction::NonForwarding => {
                self.reply(out, Situation::NO_CLUSTER.into()).await;
            }
            RouteAction::Forward(forward) => {
                if self.sheds_forwarding(chosen) {
                    self.name_cluster(chosen);
                    // Envoy counts it as its one try.
                    self.record.attempts = 1;
                    return self.reply(out, Situation::OVERLOAD.into()).await;
                }
                if self.invite(out).await.is_err() {
                    return out.set_close();
                }
                self.forward(body, out, forward, chosen, asks.upgrade).await;
            }
        }
    }

    /// Whether a request to a cluster that is there is turned away.
    fn sheds_forwarding(&self, chosen: &Chosen) -> bool {
        let conn = &self.record.conn;
        let there = || self.named_cluster(chosen).is_some();
        conn.worker.may_shed() && there() && conn.sheds(Action::AtRouter)
    }

    /// Has a client that waits for it send its body.
    pub(super) async fn invite(&mut self, out: &mut Responder<'_>) -> Result<(), Stop> {
        if std::mem::take(&mut self.expects) {
            out.send_continue().await.map_err(|_| Stop::Gone)?;
        }
        Ok(())
    }

    /// `headers_with_underscores_action`: false refuses the request.
    fn underscores_pass(&mut self) -> bool {
        let named = |name: &[u8]| memchr::memchr(b'_', name).is_some();
        let request = &mut self.record.request;
        match self.http.config.underscores {
            Underscores::Allow => true,
            Underscores::Reject => !request.lines().any(|(name, _)| named(name)),
            Underscores::Drop => {
                request.remove_where(|name, _| named(name));
                true
            }
        }
    }

    /// Rewrites the path; the answer where it is refused.
    fn normalize_path(&mut self) -> Option<LocalReply<'static>> {
        let options = self.http.config.path;
        let request = &mut self.record.request;
        if request.method() == b"CONNECT" {
            return None;
        }
        match path::normalize(request.path(), options) {
            Normalized::Path(Cow::Borrowed(_)) => None,
            Normalized::Path(Cow::Owned(path)) => {
                request.set_path(&path);
                None
            }
            Normalized::Reject => Some(Situation::PATH_NORMALIZATION_FAILED.into()),
            Normalized::Redirect(path) => {
                request.set_path(&path);
                let events = &self.http.stats.events;
                events.inc(HttpEvent::downstream_rq_redirected_with_normalized_path);
                let reply = LocalReply::new(307, "", "path_normalization_failed");
                Some(reply.header("location", path))
            }
        }
    }

    fn routes(&self) -> Option<Arc<RouteConfiguration>> {
        match &self.http.config.routes {
            RouteSource::Inline(table) => Some(table.clone()),
            RouteSource::Rds(name) => self.record.conn.worker.route_table(name),
        }
    }

    pub(super) fn choose_route(&mut self) -> Option<Chosen> {
        let table = self.routes()?;
        let record = &mut *self.record;
        let certificate = record.conn.peer.is_some();
        let request = Request {
            path: record.request.path(),
            authority: record.request.authority(),
            headers: &record.request,
            connect: record.request.method() == b"CONNECT",
            random: record.random,
            client_certificate: (certificate, certificate),
            metadata: &|namespace| record.dynamic_metadata(namespace),
        };
        let Some(selected) = table.select(&request) else {
            let host = table.virtual_host(request.authority);
            record.virtual_host = host.cloned();
            return None;
        };
        let (host, route) = (selected.virtual_host.clone(), selected.route.clone());
        record.route = Some((host.clone(), route.clone()));
        let weighted = match &route.action {
            RouteAction::Forward(forward) => match &forward.cluster {
                ClusterSpecifier::Weighted(clusters) => self.choose_weighted(forward, clusters),
                _ => None,
            },
            _ => None,
        };
        Some(Chosen {
            table,
            host,
            route,
            weighted,
        })
    }

    fn choose_weighted(
        &self,
        forward: &Forward,
        clusters: &lateen_proxy_core::config::route::WeightedClusters,
    ) -> Option<Arc<WeightedCluster>> {
        if clusters.by_hash {
            let request = &self.record.request;
            let client = Some(self.record.remote.ip());
            let hash = hash_policy::given(&forward.hash_policy, request, client);
            return clusters.at(hash.unwrap_or(self.record.random));
        }
        let given = (!clusters.random_value_header.is_empty())
            .then(|| {
                self.record
                    .request
                    .first(clusters.random_value_header.as_bytes())
            })
            .flatten()
            .and_then(|v| std::str::from_utf8(v).ok()?.parse::<u64>().ok());
        clusters.at(given.unwrap_or(self.record.random))
    }

    /// The cluster the route says, if it is there.
    pub(super) fn cluster_of(
        &self,
        forward: &Forward,
        chosen: &Chosen,
    ) -> Option<Rc<ClusterState>> {
        let clusters = &self.record.conn.worker.clusters;
        match &forward.cluster {
            ClusterSpecifier::Named(name) => clusters.get(name),
            _ => clusters.get(&self.cluster_name(forward, chosen)?),
        }
    }

    /// Puts the cluster of a request that is not forwarded into the record.
    fn name_cluster(&mut self, chosen: &Chosen) {
        if let RouteAction::Forward(forward) = &chosen.route.action {
            let cluster = self.cluster_of(forward, chosen);
            self.record.cluster_name = cluster.as_ref().map(|c| c.config.name.clone());
            self.record.led_to = cluster;
        }
    }

    /// The name of the cluster that a route leads to, if it is there.
    pub(super) fn named_cluster(&self, chosen: &Chosen) -> Option<Name> {
        match &chosen.route.action {
            RouteAction::Forward(forward) => {
                let cluster = self.cluster_of(forward, chosen)?;
                Some(cluster.config.name.clone())
            }
            _ => None,
        }
    }

    /// The name of the cluster the route says.
    pub(super) fn cluster_name(&self, forward: &Forward, chosen: &Chosen) -> Option<Name> {
        let by_header = |header: &Name| {
            let value = self.record.request.first(header.as_bytes())?;
            std::str::from_utf8(value).ok().map(Name::from)
        };
        match &forward.cluster {
            ClusterSpecifier::Named(name) => Some(name.clone()),
            ClusterSpecifier::Header(header) => by_header(header),
            ClusterSpecifier::Weighted(_) => {
                let weighted = chosen.weighted.as_ref()?;
                match weighted.name.is_empty() {
                    true => by_header(&weighted.cluster_header),
                    false => Some(weighted.name.clone()),
                }
            }
        }
    }

    fn redirect_input(&self) -> rewrite::RedirectInput<'_> {
        let request = &self.record.request;
        rewrite::RedirectInput {
            scheme: request
                .known(Known::XForwardedProto)
                .unwrap_or(request.scheme()),
            authority: request.authority(),
            path: request.path(),
        }
    }

    fn may_upgrade(&self, route: &Route) -> bool {
        let request = &self.record.request;
        let asked = match request.method() {
            b"CONNECT" => Some(&b"CONNECT"[..]),
            _ => request.known(Known::Upgrade),
        };
        let Some(asked) = asked else {
            return false;
        };
        let find = |list: &[lateen_proxy_core::config::http_connection_manager::Upgrade]| {
            let same = |name: &Name| name.as_bytes().eq_ignore_ascii_case(asked);
            list.iter().find(|u| same(&u.protocol)).map(|u| u.enabled)
        };
        let by_route = match &route.action {
            RouteAction::Forward(forward) => find(&forward.upgrades),
            _ => None,
        };
        by_route
            .or_else(|| find(&self.http.config.upgrades))
            .unwrap_or(false)
    }

    /// The route's edits of an answer of our own.
    pub(super) fn edit_reply(&mut self) {
        if self.unedited {
            return;
        }
        if let Some(chosen) = self.chosen.take() {
            self.edit_response(&chosen);
            self.chosen = Some(chosen);
        }
    }

    /// The edits of the route's levels, then what every response bears.
    pub(super) fn finish_response_head(&mut self, out: &mut Responder<'_>) {
        self.edit_reply();
        self.finish_response(out);
    }

    /// What filters do to a response, then what every response bears.
    pub(super) fn finish_response(&mut self, out: &mut Responder<'_>) {
        let chosen = self.chosen.take();
        if chosen.is_some() || self.filtered {
            filters::on_response(self, chosen.as_ref());
        }
        self.chosen = chosen;
        let record = &mut *self.record;
        for cookie in self.cookies.drain(..) {
            record.response.add(b"set-cookie", cookie.as_bytes());
        }
        ext_authz::write_all(&mut record.response, &std::mem::take(&mut self.added));
        let config = &self.http.config;
        if let Some(peers) = &self.http.peers {
            peers::tell_client(record, peers);
        }
        let response = &mut record.response;
        if !response.has(Known::Date) {
            record.conn.worker.date(|date| response.add_line(date));
        }
        match config.server_header {
            ServerHeader::Overwrite => {
                response.set_line(&self.http.server);
            }
            ServerHeader::AppendIfAbsent if !response.has(Known::Server) => {
                response.add_line(&self.http.server);
            }
            _ => {}
        }
        if !config.via.is_empty() {
            response.join_known(Known::Via, b", ", config.via.as_bytes());
        }
        let wanted =
            config.always_set_request_id_in_response || record.request.has(Known::XEnvoyForceTrace);
        if wanted && let Some(id) = record.request.known(Known::XRequestId) {
            response.set_known(Known::XRequestId, id);
        }
        if config.tracing.is_some() {
            trace::on_response(record);
        }
        // A client that is asked already, or goes by itself, is not asked again.
        let conn = &record.conn;
        if !out.closes() && conn.must_close() && (!out.is_h2() || conn.ask_to_go()) {
            out.set_close();
            let events = &self.http.stats.events;
            events.inc(HttpEvent::downstream_cx_drain_close);
        }
        if conn.sheds(Action::DisableHttpKeepalive)
            && !out.closes()
            && (!out.is_h2() || conn.ask_to_go())
        {
            out.set_close();
            let events = &self.http.stats.events;
            events.inc(HttpEvent::downstream_cx_overload_disable_keepalive);
            events.inc(HttpEvent::downstream_cx_drain_close);
        }
        if !self.complete {
            out.set_close();
        }
        record.says_close = out.closes();
        logger::response(record);
    }

    /// Response edits of the route's levels.
    fn edit_response(&mut self, chosen: &Chosen) {
        for level in chosen.edits().into_iter().flatten() {
            mutate::remove(&mut self.record.response, &level.response_remove);
            mutate::apply(self.record, Side::Response, &level.response_add);
        }
        let record = &mut *self.record;
        if chosen.host.include_attempt_count_in_response
            && record.attempts > 0
            && self.tells_attempts
        {
            let count = record.attempts.into();
            record.response.set_number(Known::XEnvoyAttemptCount, count);
        }
    }
}
