//! Doors to the private parsers, for the fuzz targets. No part of the crate's interface: it
//! changes with what is behind it.

use std::sync::Arc;

use serde_json::Value;

use crate::api::ApiError;
use crate::api::handle::Api;
use crate::api::http::{body, duplicates, params::Params, path};
use crate::api::kinds::{Kind, Target};
use crate::api::patch::{self, PatchType};
use crate::api::{crd, defaults, schema, table, validate};
use crate::stream::query::Query;
use crate::stream::websocket;

pub use crate::api::patch::merge;
pub use crate::controllers::cronjob::schedule::Schedule;
pub use crate::stream::session::{Input, parse_resize};

/// What a URL path names, as text.
pub fn path(text: &str) -> String {
    format!("{:?}", path::parse(text))
}

/// Reads everything that the API looks for in a query string; the first refusal.
///
/// # Errors
/// A parameter that is not understood.
pub fn query(text: &str) -> Result<(), ApiError> {
    let params = Params::parse(Some(text));
    params.number("limit")?;
    params.number("timeoutSeconds")?;
    params.selectors()?;
    params.dry_run()?;
    params.validation()?;
    params.flag("watch");
    Ok(())
}

/// A decoded parameter of a query string, as the API and as the streams read it.
pub fn parameter(query: &str, name: &str) -> (String, String) {
    let streams = Query::parse(query).get(name).unwrap_or_default().to_owned();
    (Params::parse(Some(query)).get(name).to_owned(), streams)
}

/// The options of `pods/log` and the ports of a port-forward.
pub fn stream_query(text: &str) -> (bool, Option<Vec<u16>>) {
    let query = Query::parse(text);
    (query.log_options().is_ok(), query.ports().ok())
}

/// A request body by its content type.
///
/// # Errors
/// 400 or 415.
pub fn decode_body(content_type: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    body::decode(content_type, bytes)
}

/// Fields that a JSON text gives twice.
pub fn duplicates(bytes: &[u8]) -> Vec<String> {
    duplicates::find(bytes)
}

/// Applies a JSON, merge or strategic patch.
///
/// # Errors
/// As the API answers.
pub fn patch(
    kind: &Kind,
    content_type: &str,
    patch: &Value,
    object: &mut Value,
) -> Result<(), ApiError> {
    patch::apply_to(kind, PatchType::parse(content_type)?, patch, object)
}

/// Applies server-side.
///
/// # Errors
/// Conflicts.
pub fn apply(
    kind: &Kind,
    live: &Value,
    applied: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, ApiError> {
    let writer = patch::apply::Writer {
        manager,
        api_version: &kind.storage_api_version,
        subresource: "",
    };
    patch::apply::apply(kind, live, applied, &writer, force)
}

/// What happens to a new object of a built-in kind before it is stored: cleaned, defaulted,
/// validated. False when a field cannot hold its value; else the number of complaints.
pub fn intake(kind: &Kind, object: &mut Value) -> Option<usize> {
    let definition = kind.definition.as_deref()?;
    if schema::check_builtin(definition, object)
        .type_error
        .is_some()
    {
        return None;
    }
    defaults::apply(kind, object);
    Some(validate::check(kind, object, None).len())
}

/// Likewise for a custom resource, under a definition that may be anything too. `None` when the
/// definition is refused or serves nothing.
pub fn custom(definition: &mut Value, object: &mut Value) -> Option<usize> {
    if !crd::prepare(definition, true).is_empty() {
        return None;
    }
    let kind = crd::kind_of(definition)?;
    let version = kind.storage_schema()?;
    crd::prune(&version.schema, object);
    crd::apply_defaults(&version.schema, object);
    Some(crd::validate(version, object, None).len())
}

/// The table row of an object.
pub fn table(target: &Target, object: Value) -> Value {
    table::of_list(target, &[Arc::new(object)], "None", false, 1, None)
}

/// A message of a remote command client; `version` counts from 0 = text, 1 = v4, 2 = v5.
pub fn channel_message(message: &[u8], version: u8) -> Option<Input> {
    let version = match version {
        0 => websocket::Version::Text,
        1 => websocket::Version::V4,
        _ => websocket::Version::V5,
    };
    websocket::parse_input(message, version)
}

/// The user and the audiences of a service account token.
///
/// # Errors
/// Why it is refused.
pub fn verify_token(api: &Api, token: &str) -> Result<(String, Vec<String>), String> {
    let verified = api.core.verify_token(token)?;
    Ok((verified.user.name, verified.audiences))
}
