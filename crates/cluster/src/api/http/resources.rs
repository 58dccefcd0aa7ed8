//! Requests for resources: reads, writes, deletions and subresources.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::body::{self, Answer};
use super::params::{Form, form};
use super::path::ResourcePath;
use super::service::Call;
use super::watch;
use crate::api::error::{ApiError, Cause};
use crate::api::handle::{DeleteOptions, Propagation};
use crate::api::kinds::Target;
use crate::api::meta;
use crate::api::patch::PatchType;
use crate::api::resource::PODS;
use crate::api::table;
use crate::stream::{self, Subresource};

/// Answers a request for a resource.
pub(super) async fn handle(
    call: &Call<'_>,
    path: &ResourcePath,
    verb: &str,
    request: Request<Incoming>,
) -> Result<Answer, ApiError> {
    let target = call
        .core()
        .registry()
        .target(&path.group, &path.version, &path.plural)
        .ok_or_else(ApiError::unknown_path)?;
    // Namespaces carry their own name as namespace in their URL.
    let ns = path.ns.as_deref().filter(|_| target.kind.namespaced);
    if path.ns.is_some() && !target.kind.namespaced && path.plural != "namespaces" {
        return Err(ApiError::unknown_path());
    }
    let one = Ask {
        call,
        target: &target,
        ns,
        name: path.name.as_deref(),
    };
    if let Some(sub) = path.sub.as_deref() {
        return one.subresource(sub, request).await;
    }
    match verb {
        "watch" => one.watch(),
        "get" => one.get(),
        "list" => one.list(),
        // Across namespaces there is a list and a watch, nothing else.
        "create" | "deletecollection" if target.kind.namespaced && ns.is_none() => {
            Err(ApiError::method_not_allowed())
        }
        "create" if path.name.is_none() => {
            one.create(&body::read(request.into_body()).await?).await
        }
        "update" => {
            one.update(&body::read(request.into_body()).await?, None)
                .await
        }
        "patch" => {
            one.patch(&body::read(request.into_body()).await?, None)
                .await
        }
        "delete" => one.delete(&body::read(request.into_body()).await?).await,
        "deletecollection" => {
            one.delete_collection(&body::read(request.into_body()).await?)
                .await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// A request for a resource with its parts at hand.
struct Ask<'a> {
    call: &'a Call<'a>,
    target: &'a Target,
    ns: Option<&'a str>,
    name: Option<&'a str>,
}

/// Metadata alone, in the form clients ask for it.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"]})
}

impl Ask<'_> {
    fn name(&self) -> Result<&str, ApiError> {
        self.name.ok_or_else(ApiError::method_not_allowed)
    }

    fn form(&self) -> Form {
        form(&self.call.accept, |f| !matches!(f, Form::Discovery { .. }))
    }

    /// One object in the form asked for.
    fn object(&self, code: StatusCode, object: &Value) -> Answer {
        match self.form() {
            Form::Table { beta } => {
                let rows = [Arc::new(object.clone())];
                let include = self.call.params.get("includeObject");
                let rv = meta::version(object);
                body::json(
                    code,
                    &table::of_list(self.target, &rows, include, beta, rv, None),
                )
            }
            Form::Partial => body::json(code, &partial(object)),
            _ => body::json(code, object),
        }
    }

    fn get(&self) -> Result<Answer, ApiError> {
        let core = self.call.core();
        let current = core.store.revision();
        let wanted = watch::version(self.call.params.get("resourceVersion"))?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted > current) {
            return Err(ApiError::version_too_large(wanted, current));
        }
        let object = core.get_in(self.target, self.ns, self.name()?)?;
        Ok(self.object(StatusCode::OK, &object))
    }

    fn list(&self) -> Result<Answer, ApiError> {
        let params = &self.call.params;
        if !params.get("sendInitialEvents").is_empty() {
            return Err(watch::option_forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
        let page = watch::page(self.call, self.target, self.ns)?;
        let code = StatusCode::OK;
        Ok(match self.form() {
            Form::Table { beta } => body::json(
                code,
                &table::of_list(
                    self.target,
                    &page.objects,
                    params.get("includeObject"),
                    beta,
                    page.rv,
                    page.next.as_ref(),
                ),
            ),
            Form::Partial => {
                let items: Vec<Value> = page.objects.iter().map(|o| partial(o)).collect();
                body::json(
                    code,
                    &json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                        "metadata": page.metadata(), "items": items}),
                )
            }
            _ => body::answer(code, "application/json", page.to_bytes(self.target)),
        })
    }

    fn watch(&self) -> Result<Answer, ApiError> {
        let mut selectors = self.call.params.selectors()?;
        if let Some(name) = self.name {
            selectors
                .field
                .extend(crate::api::Selectors::field("metadata.name", name).field);
        }
        watch::start(self.call, self.target, self.ns, selectors, self.form())
    }

    async fn create(&self, bytes: &[u8]) -> Result<Answer, ApiError> {
        let object = self.call.object(bytes)?;
        self.check_duplicates(bytes)?;
        let made = self
            .call
            .core()
            .create(&self.call.info, self.target, self.ns, object)
            .await?;
        Ok(self.object(StatusCode::CREATED, &made))
    }

    /// Fields given twice: only in JSON, and only said when asked.
    fn check_duplicates(&self, bytes: &[u8]) -> Result<(), ApiError> {
        use crate::api::core::FieldValidation::{Ignore, Strict};
        if self.call.info.validation == Ignore || !self.call.content_type.contains("json") {
            return Ok(());
        }
        let found = super::duplicates::find(bytes);
        if found.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = found
            .iter()
            .map(|f| format!("duplicate field {f:?}"))
            .collect();
        if self.call.info.validation == Strict {
            let kind = &self.target.kind.kind;
            return Err(ApiError::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
                self.target.version,
                texts.join(", ")
            )));
        }
        texts.iter().for_each(|t| self.call.info.warn(t));
        Ok(())
    }

    async fn update(&self, bytes: &[u8], sub: Option<&str>) -> Result<Answer, ApiError> {
        let name = self.name()?;
        let mut object = self.call.object(bytes)?;
        self.check_duplicates(bytes)?;
        if !object.is_object() {
            return Err(ApiError::bad_request(
                "the object provided is not a JSON object",
            ));
        }
        let given = meta::name(&object).to_owned();
        if !given.is_empty() && given != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        meta::metadata_mut(&mut object).insert("name".to_owned(), name.into());
        let object = self
            .call
            .core()
            .update(&self.call.info, self.target, self.ns, object, sub)
            .await?;
        Ok(self.object(StatusCode::OK, &object))
    }

    async fn patch(&self, bytes: &[u8], sub: Option<&str>) -> Result<Answer, ApiError> {
        let name = self.name()?;
        let how = PatchType::parse(&self.call.content_type)?;
        let patch = self.call.object(bytes)?;
        let core = self.call.core();
        if how != PatchType::Apply {
            if self.call.params.flag("force") && !self.call.params.get("force").is_empty() {
                return Err(watch::option_forbidden(
                    "force",
                    "may not be specified for non-apply patch",
                ));
            }
            let object = core
                .patch(
                    &self.call.info,
                    self.target,
                    self.ns,
                    name,
                    sub,
                    how,
                    &patch,
                )
                .await?;
            return Ok(self.object(StatusCode::OK, &object));
        }
        if self.call.params.get("fieldManager").is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid(
                "meta.k8s.io",
                "PatchOptions",
                "",
                &[cause],
            ));
        }
        let force = self.call.params.get("force") == "true";
        let (object, created) = core
            .apply(
                &self.call.info,
                self.target,
                self.ns,
                name,
                sub,
                &patch,
                force,
            )
            .await?;
        let code = if created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok(self.object(code, &object))
    }

    fn delete_options(&self, bytes: &[u8]) -> Result<DeleteOptions, ApiError> {
        let params = &self.call.params;
        let given = if bytes.is_empty() {
            Value::Null
        } else {
            self.call.object(bytes)?
        };
        let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        let policy = text(&given["propagationPolicy"])
            .or_else(|| Some(params.get("propagationPolicy").to_owned()).filter(|p| !p.is_empty()));
        let orphan = given["orphanDependents"]
            .as_bool()
            .or_else(|| params.get("orphanDependents").parse().ok());
        if let (Some(policy), Some(_)) = (&policy, orphan) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            let cause = Cause::invalid("propagationPolicy", &policy.as_str().into(), why);
            return Err(ApiError::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause],
            ));
        }
        let propagation = match policy.as_deref() {
            None => match orphan {
                Some(true) => Some(Propagation::Orphan),
                Some(false) => Some(Propagation::Background),
                None => None,
            },
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                let cause = Cause::not_supported(
                    "propagationPolicy",
                    &other.into(),
                    &["Background", "Foreground", "Orphan"],
                );
                return Err(ApiError::invalid(
                    "meta.k8s.io",
                    "DeleteOptions",
                    "",
                    &[cause],
                ));
            }
        };
        let grace = given["gracePeriodSeconds"]
            .as_i64()
            .or(params.number("gracePeriodSeconds")?);
        let dry = given["dryRun"]
            .as_array()
            .is_some_and(|d| d.iter().any(|v| v == "All"));
        Ok(DeleteOptions {
            grace_period_seconds: grace,
            propagation,
            precondition: crate::api::Precondition {
                uid: text(&given["preconditions"]["uid"]),
                resource_version: text(&given["preconditions"]["resourceVersion"]),
            },
            dry_run: dry || self.call.info.dry_run,
        })
    }

    async fn delete(&self, bytes: &[u8]) -> Result<Answer, ApiError> {
        let name = self.name()?;
        let options = self.delete_options(bytes)?;
        let (object, gone) = self
            .call
            .core()
            .delete_in(&self.call.info, self.target, self.ns, name, &options)
            .await?;
        if !gone {
            return Ok(self.object(StatusCode::OK, &object));
        }
        let res = &self.target.kind.res;
        let mut details =
            json!({"name": name, "kind": res.plural, "uid": object["metadata"]["uid"]});
        if !res.group.is_empty() {
            details["group"] = res.group.as_ref().into();
        }
        Ok(body::json(
            StatusCode::OK,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
        ))
    }

    async fn delete_collection(&self, bytes: &[u8]) -> Result<Answer, ApiError> {
        let options = self.delete_options(bytes)?;
        let selectors = self.call.params.selectors()?;
        let core = self.call.core();
        let found = core
            .delete_collection(&self.call.info, self.target, self.ns, &selectors, &options)
            .await?;
        let items: Vec<&Value> = found.iter().map(AsRef::as_ref).collect();
        Ok(body::json(
            StatusCode::OK,
            &json!({"kind": self.target.kind.list_kind, "apiVersion": self.target.api_version(),
                "metadata": {"resourceVersion": core.store.revision().to_string()}, "items": items}),
        ))
    }

    async fn subresource(&self, sub: &str, request: Request<Incoming>) -> Result<Answer, ApiError> {
        let kind = &self.target.kind;
        let method = request.method().clone();
        match sub {
            "status" if kind.status => self.plain_subresource(&method, request, "status").await,
            "finalize" if kind.res.plural == "namespaces" && method == Method::PUT => {
                self.update(&body::read(request.into_body()).await?, Some("finalize"))
                    .await
            }
            "ephemeralcontainers" if kind.is(&PODS) => {
                self.plain_subresource(&method, request, "ephemeralcontainers")
                    .await
            }
            "scale" if kind.scale.is_some() => self.scale(&method, request).await,
            "log" | "exec" | "attach" | "portforward" if kind.is(&PODS) => {
                self.stream(sub, request).await
            }
            "binding" if kind.is(&PODS) && method == Method::POST => {
                let object = self.call.object(&body::read(request.into_body()).await?)?;
                let node = object["target"]["name"].as_str().unwrap_or_default();
                let (ns, name) = (self.ns.unwrap_or_default(), self.name()?);
                self.call
                    .core()
                    .bind_pod(&self.call.info, ns, name, node)
                    .await?;
                Ok(success(StatusCode::CREATED))
            }
            "eviction" if kind.is(&PODS) && method == Method::POST => {
                self.evict(&body::read(request.into_body()).await?).await
            }
            "token" if kind.res.plural == "serviceaccounts" && method == Method::POST => {
                self.token(&body::read(request.into_body()).await?)
            }
            _ => Err(ApiError::unknown_path()),
        }
    }

    async fn plain_subresource(
        &self,
        method: &Method,
        request: Request<Incoming>,
        sub: &str,
    ) -> Result<Answer, ApiError> {
        match *method {
            Method::GET => self.get(),
            Method::PUT => {
                self.update(&body::read(request.into_body()).await?, Some(sub))
                    .await
            }
            Method::PATCH => {
                self.patch(&body::read(request.into_body()).await?, Some(sub))
                    .await
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    async fn scale(&self, method: &Method, request: Request<Incoming>) -> Result<Answer, ApiError> {
        let name = self.name()?;
        let core = self.call.core();
        let scale = match *method {
            Method::GET => {
                let object = core.get_in(self.target, self.ns, name)?;
                let paths = self
                    .target
                    .kind
                    .scale
                    .as_ref()
                    .ok_or_else(ApiError::unknown_path)?;
                crate::api::scale::read(paths, &object)
            }
            Method::PUT => {
                let given = self.call.object(&body::read(request.into_body()).await?)?;
                (*core
                    .modify_scale(&self.call.info, self.target, self.ns, name, |scale| {
                        *scale = given.clone();
                        Ok(())
                    })
                    .await?)
                    .clone()
            }
            Method::PATCH => {
                let how = PatchType::parse(&self.call.content_type)?;
                let patch = self.call.object(&body::read(request.into_body()).await?)?;
                // A Scale is a small map: applying it is merging it.
                let how = if how == PatchType::Apply {
                    PatchType::Merge
                } else {
                    how
                };
                (*core
                    .patch(
                        &self.call.info,
                        self.target,
                        self.ns,
                        name,
                        Some("scale"),
                        how,
                        &patch,
                    )
                    .await?)
                    .clone()
            }
            _ => return Err(ApiError::method_not_allowed()),
        };
        Ok(body::json(StatusCode::OK, &scale))
    }

    async fn stream(&self, sub: &str, request: Request<Incoming>) -> Result<Answer, ApiError> {
        let pod = self
            .call
            .core()
            .get_in(self.target, self.ns, self.name()?)?;
        let runtime =
            self.call.shared.runtime.get().ok_or_else(|| {
                ApiError::unavailable("no node agent runs: pods cannot be reached")
            })?;
        let sub = Subresource::by_name(sub).ok_or_else(ApiError::unknown_path)?;
        Ok(stream::serve(request, &pod, sub, Arc::clone(runtime)).await)
    }

    async fn evict(&self, bytes: &[u8]) -> Result<Answer, ApiError> {
        let given = self.call.object(bytes)?;
        let options = &given["deleteOptions"];
        let options = if options.is_null() {
            Vec::new()
        } else {
            options.to_string().into_bytes()
        };
        let options = self.delete_options_json(&options)?;
        let core = self.call.core();
        core.delete_in(
            &self.call.info,
            self.target,
            self.ns,
            self.name()?,
            &options,
        )
        .await?;
        Ok(success(StatusCode::CREATED))
    }

    fn delete_options_json(&self, bytes: &[u8]) -> Result<DeleteOptions, ApiError> {
        let json_call = Call {
            shared: self.call.shared,
            params: self.call.params.clone(),
            info: self.call.info.clone(),
            accept: String::new(),
            content_type: "application/json".to_owned(),
        };
        let inner = Ask {
            call: &json_call,
            target: self.target,
            ns: self.ns,
            name: self.name,
        };
        inner.delete_options(bytes)
    }

    fn token(&self, bytes: &[u8]) -> Result<Answer, ApiError> {
        let mut request = self.call.object(bytes)?;
        let spec = &request["spec"];
        let audiences: Vec<String> = spec["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(3600);
        let reference = &spec["boundObjectRef"];
        let text = |v: &'_ Value| v.as_str().unwrap_or_default().to_owned();
        let (kind, name, uid) = (
            text(&reference["kind"]),
            text(&reference["name"]),
            text(&reference["uid"]),
        );
        let bound = reference.is_object().then_some(crate::api::auth::Bound {
            kind: &kind,
            name: &name,
            uid: &uid,
        });
        let (ns, account) = (self.ns.unwrap_or_default(), self.name()?);
        let core = self.call.core();
        let token = core.make_token(ns, account, &audiences, seconds, bound.as_ref())?;
        let shown = if audiences.is_empty() {
            vec![core.signer.issuer.clone()]
        } else {
            audiences
        };
        request["kind"] = "TokenRequest".into();
        request["apiVersion"] = "authentication.k8s.io/v1".into();
        request["metadata"] =
            json!({"name": account, "namespace": ns, "creationTimestamp": meta::now_text()});
        if !request["spec"].is_object() {
            request["spec"] = json!({});
        }
        request["spec"]["audiences"] = shown.into();
        request["spec"]["expirationSeconds"] = seconds.into();
        request["status"] =
            json!({"token": token.token, "expirationTimestamp": meta::time_text(token.expires_at)});
        Ok(body::json(StatusCode::CREATED, &request))
    }
}

fn success(code: StatusCode) -> Answer {
    body::json(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16()}),
    )
}
