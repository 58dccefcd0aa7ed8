//! Lists in pages and watches as streams of lines.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::body::Answer;
use super::params::Form;
use super::resources::partial;
use super::service::Call;
use crate::api::core::Changes;
use crate::api::error::{ApiError, Cause};
use crate::api::handle::{WatchEvent, WatchKind};
use crate::api::kinds::Target;
use crate::api::{Selectors, meta, table};

/// Time between bookmarks of a quiet watch.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Length of a watch that names none: 30 to 60 minutes, at random.
const UNSET_SECONDS: std::ops::Range<u64> = 1800..3600;

/// Where a list goes on.
pub(crate) struct Next {
    pub(crate) token: String,
    pub(crate) remaining: Option<usize>,
}

/// One page of a list.
pub(super) struct Page {
    pub(super) objects: Vec<Arc<Value>>,
    pub(super) rv: u64,
    pub(super) next: Option<Next>,
}

impl Page {
    pub(super) fn metadata(&self) -> Value {
        let mut m = json!({"resourceVersion": self.rv.to_string()});
        if let Some(n) = &self.next {
            m["continue"] = n.token.as_str().into();
            if let Some(r) = n.remaining {
                m["remainingItemCount"] = r.into();
            }
        }
        m
    }

    /// The list as JSON, without copying the objects first.
    pub(super) fn to_bytes(&self, target: &Target) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.objects.len() * 2048);
        let head = json!({"kind": target.kind.list_kind, "apiVersion": target.api_version(),
            "metadata": self.metadata()})
        .to_string();
        out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
        out.extend_from_slice(b",\"items\":[");
        for (i, o) in self.objects.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(o.to_string().as_bytes());
        }
        out.extend_from_slice(b"]}\n");
        out
    }
}

/// 422 about a list option.
pub(super) fn option_forbidden(field: &'static str, why: &str) -> ApiError {
    ApiError::invalid(
        "meta.k8s.io",
        "ListOptions",
        "",
        &[Cause::forbidden(field, why)],
    )
}

pub(super) fn version(text: &str) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let cause = Cause::invalid(
            "resourceVersion",
            &text.into(),
            "strconv.ParseUint: parsing: invalid syntax",
        );
        ApiError::invalid("meta.k8s.io", "ListOptions", "", &[cause])
    })
}

fn expired() -> ApiError {
    ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
    )
}

fn key_of(o: &Value) -> String {
    format!("{}\0{}", meta::namespace(o), meta::name(o))
}

/// The page that the parameters ask for.
pub(super) fn page(call: &Call<'_>, target: &Target, ns: Option<&str>) -> Result<Page, ApiError> {
    let params = &call.params;
    let core = call.core();
    let selectors = params.selectors()?;
    let limit = usize::try_from(params.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let wanted = version(params.get("resourceVersion"))?;
    let how = params.get("resourceVersionMatch");
    if !how.is_empty() && wanted.is_none() {
        return Err(option_forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    if !matches!(how, "" | "Exact" | "NotOlderThan") {
        let cause = Cause::not_supported(
            "resourceVersionMatch",
            &how.into(),
            &["Exact", "NotOlderThan"],
        );
        return Err(ApiError::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[cause],
        ));
    }
    if how == "Exact" && wanted == Some(0) {
        return Err(option_forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ));
    }
    let token = params.get("continue");
    if !how.is_empty() && !token.is_empty() {
        return Err(option_forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden when continue is provided",
        ));
    }
    let current = core.store.revision();
    if let Some(wanted) = wanted.filter(|wanted| *wanted > current) {
        return Err(ApiError::version_too_large(wanted, current));
    }
    let (at, start) = if !token.is_empty() {
        let bytes = B64
            .decode(token.trim_end_matches('='))
            .map_err(|e| ApiError::bad_request(format!("continue key is not valid: {e}")))?;
        let t: Value = serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::bad_request(format!("continue key is not valid: {e}")))?;
        let start = t["start"].as_str().unwrap_or_default().to_owned();
        (Some(t["rv"].as_u64().unwrap_or(0)), Some(start))
    } else if how == "Exact" {
        (wanted, None)
    } else {
        (None, None)
    };
    let (objects, rv) = match at {
        None => core.list_in(target, ns, &selectors)?,
        Some(at) => {
            crate::api::core::Core::check_selectors(&target.kind, &selectors)?;
            let found = core
                .store
                .list_at(
                    &target.kind.store,
                    ns.filter(|_| target.kind.namespaced),
                    at,
                )
                .map_err(|_| expired())?;
            let objects = found
                .iter()
                .filter(|(k, _)| start.as_deref().is_none_or(|s| &**k >= s))
                .map(|(_, o)| target.kind.present(o, &target.version))
                .filter(|o| selectors.matches(o))
                .collect();
            (objects, at)
        }
    };
    Ok(cut(objects, rv, limit, selectors.is_empty()))
}

fn cut(mut objects: Vec<Arc<Value>>, rv: u64, limit: usize, count: bool) -> Page {
    if limit == 0 || objects.len() <= limit {
        return Page {
            objects,
            rv,
            next: None,
        };
    }
    let rest = objects.split_off(limit);
    let last = objects.last().map(|o| key_of(o)).unwrap_or_default();
    let token = json!({"v": "meta.k8s.io/v1", "rv": rv, "start": format!("{last}\0")});
    Page {
        objects,
        rv,
        next: Some(Next {
            token: B64.encode(token.to_string()),
            remaining: count.then_some(rest.len()),
        }),
    }
}

/// What a running watch has at hand.
struct Watch {
    target: Target,
    form: Form,
    include: String,
    bookmarks: bool,
    changes: Changes,
    ready: VecDeque<Bytes>,
    /// A table's columns are told once.
    columns_told: bool,
    ends: Instant,
    next_bookmark: Instant,
    closing: bool,
}

/// Starts a watch: its answer streams until the time is over, the client leaves or history is
/// lost.
pub(super) fn start(
    call: &Call<'_>,
    target: &Target,
    ns: Option<&str>,
    selectors: Selectors,
    form: Form,
) -> Result<Answer, ApiError> {
    let params = &call.params;
    let core = call.core();
    let since = version(params.get("resourceVersion"))?;
    let bookmarks = params.flag("allowWatchBookmarks");
    let how = params.get("resourceVersionMatch");
    let initial = match params.get("sendInitialEvents") {
        "" => {
            if !how.is_empty() {
                return Err(option_forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            None
        }
        text => {
            if how != "NotOlderThan" {
                return Err(option_forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            Some(text == "true")
        }
    };
    let from_start = initial.unwrap_or(matches!(since, None | Some(0)));
    let mut ready = Vec::new();
    let from = if from_start {
        let (objects, rv) = core.list_in(target, ns, &selectors)?;
        ready.extend(objects.into_iter().map(|object| WatchEvent {
            rv: meta::version(&object),
            kind: WatchKind::Added,
            object,
        }));
        rv
    } else {
        since
            .filter(|v| *v > 0)
            .unwrap_or_else(|| core.store.revision())
    };
    let changes = core.changes(target, ns, &selectors, from)?;
    let seconds = params
        .number("timeoutSeconds")?
        .and_then(|s| u64::try_from(s).ok())
        .filter(|s| *s > 0)
        .unwrap_or_else(|| fastrand::u64(UNSET_SECONDS));
    let now = Instant::now();
    let mut watch = Watch {
        target: target.clone(),
        form,
        include: params.get("includeObject").to_owned(),
        bookmarks,
        changes,
        ready: VecDeque::new(),
        columns_told: false,
        ends: now + Duration::from_secs(seconds),
        next_bookmark: now + BOOKMARK_EVERY,
        closing: false,
    };
    for event in ready {
        watch.push(&event);
    }
    if initial == Some(true) && bookmarks {
        watch.push_bookmark(from, true);
    }
    let stream = futures_util::stream::unfold(watch, |mut w| async move {
        let line = w.next().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(line)), w))
    });
    let mut answer = Response::new(StreamBody::new(stream).boxed_unsync());
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(answer)
}

impl Watch {
    fn line(&mut self, kind: &str, object: &Value) {
        let text = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
        self.ready.push_back(Bytes::from(text));
    }

    fn push(&mut self, event: &WatchEvent) {
        let kind = match event.kind {
            WatchKind::Added => "ADDED",
            WatchKind::Modified => "MODIFIED",
            WatchKind::Deleted => "DELETED",
            WatchKind::Bookmark => return,
        };
        match self.form {
            Form::Table { beta } => {
                let rows = [Arc::clone(&event.object)];
                let mut t =
                    table::of_list(&self.target, &rows, &self.include, beta, event.rv, None);
                if std::mem::replace(&mut self.columns_told, true) {
                    t["columnDefinitions"] = Value::Null;
                }
                self.line(kind, &t);
            }
            Form::Partial => self.line(kind, &partial(&event.object)),
            _ => self.line(kind, &Arc::clone(&event.object)),
        }
    }

    fn push_bookmark(&mut self, rv: u64, initial_end: bool) {
        let mut object = json!({"kind": self.target.kind.kind, "apiVersion": self.target.api_version(),
            "metadata": {"resourceVersion": rv.to_string(), "creationTimestamp": null}});
        if self.form == Form::Partial {
            object["kind"] = "PartialObjectMetadata".into();
            object["apiVersion"] = "meta.k8s.io/v1".into();
        }
        if initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.line("BOOKMARK", &object);
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.closing {
                return None;
            }
            let wake = self.ends.min(self.next_bookmark);
            tokio::select! {
                changes = self.changes.next() => match changes {
                    Ok(events) => events.iter().for_each(|e| self.push(e)),
                    Err(e) if e.code == 503 => return None,
                    Err(e) => {
                        self.closing = true;
                        self.line("ERROR", &e.status());
                    }
                },
                () = tokio::time::sleep_until(wake) => {
                    self.closing = Instant::now() >= self.ends;
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    if self.bookmarks {
                        let rv = self.changes.progress();
                        self.push_bookmark(rv, false);
                    }
                }
            }
        }
    }
}
