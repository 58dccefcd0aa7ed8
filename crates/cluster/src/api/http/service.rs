//! One request: who asks, may they, what is it, and the answer's common headers.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError};

use http::{HeaderValue, Method, Request, header};
use hyper::body::Incoming;
use serde_json::Value;

use super::body::{self, Answer};
use super::params::{self, Params};
use super::path::{self, Named, ResourcePath};
use super::{discovery, openapi, resources, reviews, root};
use crate::api::auth::{self, Action};
use crate::api::core::{Core, RequestInfo};
use crate::api::error::ApiError;
use crate::api::handle::UserInfo;
use crate::api::resource::Resource;
use crate::api::server::StaticToken;
use crate::node::runtime::NodeRuntime;

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) tokens: Vec<StaticToken>,
    pub(crate) runtime: OnceLock<Arc<dyn NodeRuntime>>,
    /// `https://host:port` under which the server is known.
    pub(crate) base_url: String,
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// User of a verified client certificate.
    pub(crate) user: Option<Arc<UserInfo>>,
    /// A certificate was shown and is not to be trusted.
    pub(crate) refused: bool,
}

/// A request on its way.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) params: Params,
    pub(crate) info: RequestInfo,
    pub(crate) accept: String,
    pub(crate) content_type: String,
}

fn header_text<B>(request: &Request<B>, name: header::HeaderName) -> String {
    let values = request.headers().get_all(name);
    let texts: Vec<&str> = values.iter().filter_map(|v| v.to_str().ok()).collect();
    texts.join(",")
}

/// Answers one request.
pub(crate) async fn serve(shared: Arc<Shared>, peer: Peer, request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // Larger versions have no such header: they end the stream alone.
    let closes = request.version() < http::Version::HTTP_2;
    let warnings = Arc::default();
    let result = route(&shared, &peer, request, &warnings).await;
    let mut answer = match result {
        Ok(a) => a,
        Err(e) => body::error(&e),
    };
    tracing::debug!(%method, path, peer = %peer.address, code = answer.status().as_u16(), "request");
    let too_large = answer.status() == http::StatusCode::PAYLOAD_TOO_LARGE;
    let headers = answer.headers_mut();
    if too_large && closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    headers.insert(
        "audit-id",
        HeaderValue::from_str(&crate::api::meta::new_uid())
            .unwrap_or(HeaderValue::from_static("-")),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    let list = warnings.lock().unwrap_or_else(PoisonError::into_inner);
    for w in list.iter() {
        let quoted = w
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(['\n', '\r'], " ");
        if let Ok(v) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(header::WARNING, v);
        }
    }
    answer
}

fn authenticate(
    shared: &Shared,
    peer: &Peer,
    request: &Request<Incoming>,
) -> Result<Arc<UserInfo>, ApiError> {
    if let Some(user) = &peer.user {
        return Ok(Arc::clone(user));
    }
    let text = header_text(request, header::AUTHORIZATION);
    if text.is_empty() {
        return if peer.refused {
            Err(ApiError::unauthorized())
        } else {
            Ok(Arc::new(auth::anonymous()))
        };
    }
    let token = text
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, t)| t.trim())
        .ok_or_else(ApiError::unauthorized)?;
    let known = shared.tokens.iter().find(|t| {
        aws_lc_rs::constant_time::verify_slices_are_equal(t.token.as_bytes(), token.as_bytes())
            .is_ok()
    });
    if let Some(t) = known {
        return Ok(Arc::new(auth::authenticated(&t.user, &t.groups)));
    }
    shared
        .core
        .user_of_token(token)
        .ok_or_else(ApiError::unauthorized)
}

/// The user named by the `Impersonate-*` headers, when the caller may be each thing they name.
fn impersonate(
    shared: &Shared,
    user: Arc<UserInfo>,
    request: &Request<Incoming>,
) -> Result<Arc<UserInfo>, ApiError> {
    let headers = request.headers();
    let get = |name: &'static str| header_text(request, header::HeaderName::from_static(name));
    let (name, uid) = (get("impersonate-user"), get("impersonate-uid"));
    let groups: Vec<&str> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let extra: Vec<(String, &str)> = headers
        .iter()
        .filter_map(|(key, value)| {
            let key = key.as_str().strip_prefix("impersonate-extra-")?;
            Some((params::decode_segment(key), value.to_str().ok()?))
        })
        .collect();
    if name.is_empty() {
        // Half an identity would leave the caller's own rights in place unnoticed.
        if headers
            .keys()
            .any(|k| k.as_str().starts_with("impersonate-"))
        {
            return Err(ApiError::bad_request(
                "the Impersonate-Group, -Uid and -Extra headers need Impersonate-User beside them: name the user to act as",
            ));
        }
        return Ok(user);
    }
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let may = |group: &str, resource: &str, sub: &str, ns: &str, name: &str| {
        let verb = "impersonate";
        let path = None;
        let action = Action {
            verb,
            group,
            resource,
            sub,
            name,
            ns,
            path,
        };
        authorize(shared, &user, &action)
    };
    const AUTHENTICATION: &str = "authentication.k8s.io";
    match account {
        Some((ns, name)) => may("", "serviceaccounts", "", ns, name)?,
        None => may("", "users", "", "", &name)?,
    }
    groups
        .iter()
        .try_for_each(|g| may("", "groups", "", "", g))?;
    extra
        .iter()
        .try_for_each(|(key, value)| may(AUTHENTICATION, "userextras", key, "", value))?;
    if !uid.is_empty() {
        may(AUTHENTICATION, "uids", "", "", &uid)?;
    }
    let named: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
    let mut to = auth::authenticated(&name, &named);
    if let (true, Some((ns, _))) = (groups.is_empty(), account) {
        to.groups.push("system:serviceaccounts".to_owned());
        to.groups.push(format!("system:serviceaccounts:{ns}"));
    }
    to.uid = uid;
    for (key, value) in extra {
        to.extra.entry(key).or_default().push(value.to_owned());
    }
    Ok(Arc::new(to))
}

/// Refuses what the user may not do, in the usual words.
pub(crate) fn authorize(
    shared: &Shared,
    user: &UserInfo,
    action: &Action<'_>,
) -> Result<(), ApiError> {
    if auth::allowed(&shared.core.store, user, action) {
        return Ok(());
    }
    let who = &user.name;
    let verb = action.verb;
    if let Some(path) = action.path {
        return Err(ApiError::new(
            403,
            "Forbidden",
            format!("forbidden: User {who:?} cannot {verb} path {path:?}"),
        ));
    }
    let resource = if action.sub.is_empty() {
        action.resource.to_owned()
    } else {
        format!("{}/{}", action.resource, action.sub)
    };
    let place = if action.ns.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", action.ns)
    };
    let why = format!(
        "User {who:?} cannot {verb} resource {resource:?} in API group {:?} {place}",
        action.group
    );
    let res = Resource::named(action.group, action.resource);
    Err(ApiError::forbidden(&res, action.name, &why))
}

/// The verb that authorization knows a request by; a method that no resource has is refused.
fn verb(method: &Method, path: &ResourcePath, params: &Params) -> Result<&'static str, ApiError> {
    let one = path.name.is_some();
    Ok(match *method {
        Method::GET | Method::HEAD if path.watch || params.flag("watch") => "watch",
        Method::GET | Method::HEAD if one => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        _ => return Err(ApiError::method_not_allowed()),
    })
}

async fn route(
    shared: &Arc<Shared>,
    peer: &Peer,
    request: Request<Incoming>,
    warnings: &Arc<std::sync::Mutex<Vec<String>>>,
) -> Result<Answer, ApiError> {
    let user = authenticate(shared, peer, &request)?;
    let user = impersonate(shared, user, &request)?;
    let params = Params::parse(request.uri().query());
    let named = path::parse(request.uri().path());
    let agent = header_text(&request, header::USER_AGENT);
    let default_manager = agent.split('/').next().unwrap_or_default();
    let manager = match params.get("fieldManager") {
        "" if default_manager.is_empty() => "unknown",
        "" => default_manager,
        m => m,
    };
    let call = Call {
        shared,
        info: RequestInfo {
            user: Arc::clone(&user),
            field_manager: manager.to_owned(),
            tracked: true,
            dry_run: params.dry_run()?,
            validation: params.validation()?,
            patched: None,
            warnings: Arc::clone(warnings),
        },
        accept: header_text(&request, header::ACCEPT),
        content_type: header_text(&request, header::CONTENT_TYPE),
        params,
    };
    let method = request.method().clone();
    if let Named::Resource(path) = &named {
        let verb = verb(&method, path, &call.params)?;
        let action = Action {
            verb,
            group: &path.group,
            resource: &path.plural,
            sub: path.sub.as_deref().unwrap_or_default(),
            name: path.name.as_deref().unwrap_or_default(),
            ns: path.ns.as_deref().unwrap_or_default(),
            path: None,
        };
        authorize(shared, &user, &action)?;
        // Streams choose their own form: text, frames, a protocol.
        let streams = ["log", "exec", "attach", "portforward"];
        if !streams.contains(&action.sub) {
            params::check_accept(&call.accept)?;
        }
        if let Some(answer) = reviews::handle(&call, &method, path, request.uri().path()) {
            let bytes = body::read(request.into_body()).await?;
            return answer.run(&call, &bytes);
        }
        return resources::handle(&call, path, verb, request).await;
    }
    let url = request.uri().path().to_owned();
    let action = Action {
        verb: if method == Method::GET || method == Method::HEAD {
            "get"
        } else {
            "post"
        },
        path: Some(&url),
        ..Action::default()
    };
    authorize(shared, &user, &action)?;
    if method != Method::GET && method != Method::HEAD {
        return Err(ApiError::method_not_allowed());
    }
    let etag = header_text(&request, header::IF_NONE_MATCH);
    match named {
        Named::Other(url) if url.starts_with("/openapi") => openapi::handle(&call, &url, &etag),
        Named::Other(url) => root::handle(&call, &url),
        other => discovery::handle(&call, &other, &etag),
    }
}

impl Call<'_> {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.shared.core
    }

    /// Decodes the request's object.
    pub(crate) fn object(&self, bytes: &[u8]) -> Result<Value, ApiError> {
        body::decode(&self.content_type, bytes)
    }
}
