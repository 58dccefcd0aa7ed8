//! The `jwt_authn` filter at work: tokens out of the request, keys, verdict; then what a good
//! token leaves behind in headers and metadata.

mod keys;
mod signature;

use std::rc::Rc;
use std::sync::Arc;

use lateen_proxy_core::config::jwt::{
    JwtAuthentication, JwtProvider, JwtRequirement, KeySource, TokenPlace,
};
use lateen_proxy_core::config::{Name, Value};
use lateen_proxy_core::jwt::{
    self, Alternatives, Failure, Found, JwkSet, Token, check_claims, claim_text, normalized_payload,
};
use lateen_proxy_core::path;
use lateen_proxy_core::router::Request;
use lateen_proxy_core::stats::{Counter, Scope};

use self::keys::{FetchCounters, Keys};
pub use self::signature::verify;
use super::filters::Stop;
use super::known::Known;
use super::local::LocalReply;
use super::record::now_ns;
use super::responder::Responder;
use super::source::RequestBody;
use super::stream::Stream;
use crate::logger::{self, JWT, tells};
use crate::stats::Stats;

/// Where claims are kept in dynamic metadata.
pub const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// What a filter keeps in one worker.
#[derive(Debug)]
pub struct JwtState {
    /// As configured.
    pub config: Arc<JwtAuthentication>,
    allowed: Counter,
    denied: Counter,
    bypassed: Counter,
    /// Remote keys, in the order of the providers.
    keys: Vec<Option<Rc<Keys>>>,
}

impl JwtState {
    /// The state of a filter that has served nothing yet.
    pub fn new(config: Arc<JwtAuthentication>, scope: &Scope, stats: &Stats) -> Self {
        let prefix = match config.stat_prefix.trim_end_matches('.') {
            "" => String::new(),
            prefix => format!("{prefix}."),
        };
        let counter = |stat: &str| stats.named(scope, &format!("jwt_authn.{prefix}{stat}"));
        let counters = Rc::new(FetchCounters {
            success: counter("jwks_fetch_success"),
            failed: counter("jwks_fetch_failed"),
        });
        let keys = config
            .providers
            .iter()
            .map(|provider| match &provider.keys {
                KeySource::Local(_) => None,
                KeySource::Remote(remote) => Some(Keys::new(remote.clone(), counters.clone())),
            });
        Self {
            keys: keys.collect(),
            allowed: counter("allowed"),
            denied: counter("denied"),
            bypassed: counter("cors_preflight_bypassed"),
            config,
        }
    }

    fn remote(&self, provider: &Arc<JwtProvider>) -> Option<&Rc<Keys>> {
        let mut providers = self.config.providers.iter();
        let at = providers.position(|p| Arc::ptr_eq(p, provider))?;
        self.keys[at].as_ref()
    }
}

/// Why a requirement is not met.
enum Unmet {
    Failure(Failure),
    /// The client did not wait.
    Gone,
}

impl From<Failure> for Unmet {
    fn from(why: Failure) -> Self {
        Self::Failure(why)
    }
}

/// Checks a request. `own` is what its route says of the filter. True when the route is to be
/// chosen anew.
pub(super) async fn authenticate(
    stream: &mut Stream<'_>,
    body: &mut RequestBody<'_>,
    out: &mut Responder<'_>,
    state: &JwtState,
    own: Option<&Option<Name>>,
) -> Result<bool, Stop> {
    let config = state.config.clone();
    // Whatever the request needs: what is behind believes these headers.
    for name in &config.own_headers {
        stream.record.request.remove(name.as_bytes());
    }
    if config.bypass_cors_preflight && is_preflight(stream) {
        state.bypassed.inc();
        state.allowed.inc();
        return Ok(false);
    }
    let needed = match own {
        Some(None) => {
            state.allowed.inc();
            return Ok(false);
        }
        Some(Some(name)) => match config.named.iter().find(|(n, _)| n == name) {
            Some((_, needed)) => needed,
            None => return Err(wrong_name(&config, name)),
        },
        None => match rule_of(stream, &config) {
            Some(needed) => needed,
            None => {
                say(stream, "OK");
                state.allowed.inc();
                return Ok(false);
            }
        },
    };
    let request = &stream.record.request;
    let scheme = request.known(Known::XForwardedProto);
    let path = request.known(Known::XEnvoyOriginalPath);
    let uri = jwt::original_uri(
        scheme.unwrap_or(request.scheme()),
        request.authority(),
        path.unwrap_or(request.path()),
    );
    let mut check = Check {
        stream,
        body,
        out,
        state,
        choose_anew: false,
    };
    let met = check.meets(needed).await;
    say(
        check.stream,
        match &met {
            Ok(()) => "OK",
            Err(Unmet::Gone) => "the client went away",
            Err(Unmet::Failure(why)) => why.text(),
        },
    );
    match met {
        Ok(()) => {
            state.allowed.inc();
            Ok(check.choose_anew)
        }
        Err(Unmet::Gone) => Err(Stop::Gone),
        Err(Unmet::Failure(why)) => {
            state.denied.inc();
            Err(Stop::reply(refusal(&config, why, &uri)))
        }
    }
}

/// Tells how it ended, in Envoy's words.
fn say(stream: &Stream<'_>, status: &str) {
    if tells!(JWT) {
        let tags = logger::tagged(stream.record);
        tracing::debug!(target: JWT, "{tags} Jwt authentication completed with: {status}");
    }
}

fn is_preflight(stream: &Stream<'_>) -> bool {
    let request = &stream.record.request;
    let said = |name| request.known(name).is_some_and(|v| !v.is_empty());
    request.method() == b"OPTIONS" && said(Known::Origin) && said(Known::AccessControlRequestMethod)
}

fn rule_of<'c>(stream: &Stream<'_>, config: &'c JwtAuthentication) -> Option<&'c JwtRequirement> {
    let record = &*stream.record;
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
    let bare = path::without_query(request.path);
    let query = path::query(request.path);
    let mut rules = config.rules.iter();
    let found = rules.find(|(matching, _)| matching.matches(&request, bare, query));
    found.map(|(_, needed)| needed)
}

fn details(text: &str) -> String {
    format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"))
}

/// A route names a requirement that the filter does not have.
fn wrong_name(config: &JwtAuthentication, name: &str) -> Stop {
    let known: Vec<&str> = config.named.iter().map(|(n, _)| &**n).collect();
    let known = known.join(",");
    let why = format!("Wrong requirement_name: {name}. It should be one of [{known}]");
    let mut reply = LocalReply::new(403, "", details(&why));
    reply.body = format!("Failed JWT authentication: {why}")
        .into_bytes()
        .into();
    Stop::reply(reply)
}

fn refusal(config: &JwtAuthentication, why: Failure, uri: &[u8]) -> LocalReply<'static> {
    let details = details(why.text());
    if config.strip_failure_response {
        return LocalReply::new(why.http_status(), "", details);
    }
    let error: &[u8] = match why {
        Failure::Missing => b"\"",
        _ => b"\", error=\"invalid_token\"",
    };
    let challenge = [b"Bearer realm=\"", uri, error].concat();
    LocalReply::new(why.http_status(), why.text(), details).header("www-authenticate", challenge)
}

/// One request being checked.
struct Check<'a, 'c, 's, 'b, 'o> {
    stream: &'a mut Stream<'c>,
    body: &'a mut RequestBody<'b>,
    out: &'a mut Responder<'o>,
    state: &'s JwtState,
    choose_anew: bool,
}

impl Check<'_, '_, '_, '_, '_> {
    async fn meets(&mut self, needed: &JwtRequirement) -> Result<(), Unmet> {
        match needed {
            JwtRequirement::Nothing => Ok(()),
            JwtRequirement::Provider(provider, audiences) => {
                self.tokens_of(provider, audiences.as_deref()).await
            }
            JwtRequirement::Any {
                of,
                missing,
                failed,
            } => {
                let mut failures = Alternatives::default();
                for one in of {
                    match Box::pin(self.meets(one)).await {
                        Err(Unmet::Failure(why)) => failures.failed(why),
                        ended => return ended,
                    }
                }
                Ok(failures.outcome(*missing, *failed)?)
            }
            JwtRequirement::All(all) => {
                for one in all {
                    Box::pin(self.meets(one)).await?;
                }
                Ok(())
            }
            JwtRequirement::AllowMissing => self.tokens_of_anyone(false).await,
            JwtRequirement::AllowMissingOrFailed => self.tokens_of_anyone(true).await,
        }
    }

    /// Every token that stands in a place of the provider must be good, the last place first, as
    /// in Envoy.
    async fn tokens_of(
        &mut self,
        provider: &Arc<JwtProvider>,
        audiences: Option<&[Name]>,
    ) -> Result<(), Unmet> {
        let found = jwt::tokens(&provider.places, &self.stream.record.request);
        if found.is_empty() {
            return Err(self.note(Some(provider), Failure::Missing).into());
        }
        for Found { text, place } in found.iter().rev() {
            let place = &provider.places[*place];
            let good = match Token::parse(text) {
                Ok(token) => self.token(provider, audiences, place, &token).await,
                Err(why) => Err(why.into()),
            };
            if let Err(Unmet::Failure(why)) = good {
                self.note(Some(provider), why);
            }
            good?;
        }
        Ok(())
    }

    /// Tokens of whichever provider issued them. The last that is looked at decides.
    async fn tokens_of_anyone(&mut self, failed_too: bool) -> Result<(), Unmet> {
        let state = self.state;
        let providers = &state.config.providers;
        let mut places: Vec<&TokenPlace> = Vec::new();
        for place in providers.iter().flat_map(|p| &p.places) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let found = jwt::tokens(places.iter().copied(), &self.stream.record.request);
        if found.is_empty() {
            self.note(None, Failure::Missing);
        }
        let mut last = Ok(());
        for Found { text, place } in found.iter().rev() {
            last = match self.token_of_anyone(text, places[*place]).await {
                Err(Unmet::Failure(why)) => Err(why),
                Err(Unmet::Gone) => return Err(Unmet::Gone),
                Ok(()) => Ok(()),
            };
        }
        match last {
            Err(why) if !failed_too => Err(why.into()),
            _ => Ok(()),
        }
    }

    async fn token_of_anyone(&mut self, text: &str, place: &TokenPlace) -> Result<(), Unmet> {
        let state = self.state;
        let token = match Token::parse(text) {
            Ok(token) => token,
            Err(why) => return Err(self.note(None, why).into()),
        };
        let with = |issuer: &str| {
            let mut all = state.config.providers.iter();
            all.find(|p| *p.issuer == *issuer)
        };
        let named = Some(&*token.issuer).filter(|iss| !iss.is_empty());
        let provider = named.and_then(with).or_else(|| with(""));
        let provider = provider.filter(|p| p.places.contains(place));
        let Some(provider) = provider else {
            return Err(self.note(None, Failure::UnknownIssuer).into());
        };
        let good = self.token(provider, None, place, &token).await;
        if let Err(Unmet::Failure(why)) = good {
            self.note(Some(provider), why);
        }
        good
    }

    async fn token(
        &mut self,
        provider: &Arc<JwtProvider>,
        audiences: Option<&[Name]>,
        place: &TokenPlace,
        token: &Token<'_>,
    ) -> Result<(), Unmet> {
        check_claims(provider, audiences, token, now_ns() / 1_000_000_000)?;
        let keys = self.keys(provider).await?;
        verify(&keys, token)?;
        self.pass_on(provider, place, token);
        Ok(())
    }

    async fn keys(&mut self, provider: &Arc<JwtProvider>) -> Result<Arc<JwkSet>, Unmet> {
        if let KeySource::Local(keys) = &provider.keys {
            return Ok(keys.clone());
        }
        let keys = self.state.remote(provider).ok_or(Failure::NoValidKeys)?;
        let worker = self.stream.record.conn.worker.clone();
        keys.begin(&worker);
        let fetched = keys.get(&worker);
        match self.stream.pending(self.body, self.out, fetched).await {
            Some(fetched) => Ok(fetched?),
            None => Err(Unmet::Gone),
        }
    }

    /// What a good token leaves behind.
    fn pass_on(&mut self, provider: &JwtProvider, place: &TokenPlace, token: &Token<'_>) {
        let record = &mut *self.stream.record;
        let request = &mut record.request;
        if !provider.payload_header.is_empty() {
            let padded;
            let text = match provider.pad_payload_header {
                true => {
                    let fill = (4 - token.payload_text.len() % 4) % 4;
                    padded = format!("{}{}", token.payload_text, &"==="[..fill]);
                    &padded
                }
                false => token.payload_text,
            };
            request.add(provider.payload_header.as_bytes(), text.as_bytes());
        }
        for (header, claim) in &provider.claim_headers {
            if let Some(text) = token.payload.path(claim).and_then(claim_text)
                && !text.is_empty()
            {
                request.add(header.as_bytes(), text.as_bytes());
            }
        }
        if !provider.forward {
            jwt::remove(place, request);
        }
        if !provider.payload_in_metadata.is_empty() {
            let payload = normalized_payload(&token.payload, &provider.space_delimited_claims);
            record.set_metadata(NAMESPACE, &provider.payload_in_metadata, payload);
        }
        if !provider.header_in_metadata.is_empty() {
            let header = token.header.clone();
            record.set_metadata(NAMESPACE, &provider.header_in_metadata, header);
        }
        self.choose_anew |= provider.clear_route_cache;
    }

    /// Puts a failure into the metadata of the provider it concerns, or of all where it is not
    /// known whose token it was.
    fn note(&mut self, provider: Option<&Arc<JwtProvider>>, why: Failure) -> Failure {
        let state = self.state;
        let all = match provider {
            Some(provider) => std::slice::from_ref(provider),
            None => &state.config.providers[..],
        };
        for provider in all {
            if !provider.failed_status_in_metadata.is_empty() {
                let fields = [
                    ("code".into(), Value::Number(why.number().into())),
                    ("message".into(), Value::String(why.text().into())),
                ];
                let status = Value::Struct(fields.into_iter().collect());
                let key = &provider.failed_status_in_metadata;
                self.stream.record.set_metadata(NAMESPACE, key, status);
            }
        }
        why
    }
}
