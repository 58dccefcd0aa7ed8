//! Who calls the secure port: a Kubernetes service account, proven by a bearer token of
//! audience `istio-ca`. Answers of the token check are kept for a minute.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tonic::Status;
use tower::{Layer, Service};

use crate::ads::Caller;
use crate::metrics::Metrics;

/// How long a checked token is trusted without asking again; a token that is taken back
/// stays good for this long at most.
const TRUST: Duration = Duration::from_secs(60);
/// Longest token: those of service accounts are about 1 KiB.
const LONGEST_TOKEN: usize = 16 * 1024;
/// Checked tokens kept; beyond that the oldest answers are forgotten.
const KEPT: usize = 4096;

/// Asks the cluster whose token this is.
#[async_trait::async_trait]
pub trait TokenReviewer: Send + Sync + 'static {
    /// The service account's namespace and name.
    ///
    /// # Errors
    /// Why the token is not accepted, or that nobody could be asked.
    async fn review(&self, token: &str) -> Result<(String, String), String>;
}

/// Checks bearer tokens and remembers the answers.
pub struct Authenticator {
    reviewer: Arc<dyn TokenReviewer>,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<String, (Caller, Instant)>>,
}

impl Authenticator {
    /// An authenticator over a reviewer.
    pub fn new(reviewer: Arc<dyn TokenReviewer>, metrics: Arc<Metrics>) -> Self {
        Self {
            reviewer,
            metrics,
            known: Mutex::default(),
        }
    }

    /// The caller of a request with this `authorization` header.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` with the reason.
    pub async fn caller(&self, authorization: Option<&str>) -> Result<Caller, Status> {
        let result = self.check(authorization).await;
        if result.is_err() {
            self.metrics
                .count("citadel_server_authentication_failure_count", &[]);
        }
        result.map_err(Status::unauthenticated)
    }

    async fn check(&self, authorization: Option<&str>) -> Result<Caller, String> {
        let header = authorization.ok_or("a bearer token is required")?;
        let token = bearer(header)?;
        if let Some(caller) = self.remembered(token) {
            return Ok(caller);
        }
        let (namespace, name) = self.reviewer.review(token).await?;
        let caller = Caller::ServiceAccount { namespace, name };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, (_, at)| at.elapsed() < TRUST);
        }
        if known.len() < KEPT {
            known.insert(token.to_owned(), (caller.clone(), Instant::now()));
        }
        Ok(caller)
    }

    fn remembered(&self, token: &str) -> Option<Caller> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (caller, at) = known.get(token)?;
        (at.elapsed() < TRUST).then(|| caller.clone())
    }
}

/// The token of an `authorization` header (RFC 6750 2.1). What cannot be a token is not
/// worth a question to the API server.
///
/// # Errors
/// Another scheme, no token, or one that is too long or of other characters.
pub(crate) fn bearer(header: &str) -> Result<&str, &'static str> {
    let token = header
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|t| !t.is_empty())
        .ok_or("the authorization header is no bearer token")?;
    if token.len() > LONGEST_TOKEN {
        return Err("the bearer token is too long");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if !token.bytes().all(plain) {
        return Err("the bearer token has characters that no token has");
    }
    Ok(token)
}

/// Puts an [`Authenticator`] before a gRPC service.
#[derive(Clone)]
pub struct AuthLayer(pub Arc<Authenticator>);

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated {
            inner,
            authenticator: Arc::clone(&self.0),
        }
    }
}

/// A service that only authenticated callers reach.
#[derive(Clone)]
pub struct Authenticated<S> {
    inner: S,
    authenticator: Arc<Authenticator>,
}

impl<S, B> Service<http::Request<B>> for Authenticated<S>
where
    S: Service<http::Request<B>, Response = http::Response<tonic::body::Body>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let authenticator = Arc::clone(&self.authenticator);
        // The clone takes the readiness that was polled; this one will be polled again.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let header = request.headers().get(http::header::AUTHORIZATION).cloned();
            let header = header.as_ref().and_then(|h| h.to_str().ok());
            match authenticator.caller(header).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Fixed(AtomicUsize);

    #[async_trait::async_trait]
    impl TokenReviewer for Fixed {
        async fn review(&self, token: &str) -> Result<(String, String), String> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match token {
                "good" => Ok(("default".into(), "bookinfo-reviews".into())),
                _ => Err("token is not known".into()),
            }
        }
    }

    #[tokio::test]
    async fn tokens_are_checked_and_good_ones_remembered() {
        let reviewer = Arc::new(Fixed(AtomicUsize::new(0)));
        let a = Authenticator::new(reviewer.clone(), Arc::default());
        for bad in [None, Some("Basic x"), Some("Bearer "), Some("Bearer wrong")] {
            let e = a.caller(bad).await.expect_err("refused");
            assert_eq!(e.code(), tonic::Code::Unauthenticated, "{bad:?}");
        }
        let asked = reviewer.0.load(Ordering::Relaxed);
        assert_eq!(asked, 1, "only what may be a token is asked about");
        let long = format!("Bearer {}", "a".repeat(LONGEST_TOKEN + 1));
        for odd in [
            "",
            " ",
            "Bearer",
            "Bearer  \t ",
            "Bearer a b",
            "Bearer good\u{0}",
            "Bearer g\u{f6}\u{f6}d",
            "bearergood",
            &long,
        ] {
            let e = a.caller(Some(odd)).await.expect_err(odd);
            assert_eq!(e.code(), tonic::Code::Unauthenticated);
            assert!(e.message().len() < 100, "{}", e.message());
        }
        assert_eq!(reviewer.0.load(Ordering::Relaxed), asked);
        for _ in 0..3 {
            let caller = a.caller(Some("Bearer good")).await.expect("known");
            assert_eq!(
                caller,
                Caller::ServiceAccount {
                    namespace: "default".into(),
                    name: "bookinfo-reviews".into()
                }
            );
        }
        assert_eq!(reviewer.0.load(Ordering::Relaxed), asked + 1);
    }
}
