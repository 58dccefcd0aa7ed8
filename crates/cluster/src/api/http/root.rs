//! Paths that are no resources: version, health, issuer discovery.

use http::StatusCode;
use serde_json::{Value, json};

use super::body::{self, Answer};
use super::service::Call;
use crate::api::error::ApiError;

fn version(git_version: &str) -> Value {
    let mut parts = git_version.trim_start_matches('v').split(['.', '-', '+']);
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (major, minor) = (next(), next());
    json!({"major": major, "minor": minor, "gitVersion": git_version,
        "gitCommit": "0000000000000000000000000000000000000000", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "rust", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)})
}

pub(super) fn handle(call: &Call<'_>, url: &str) -> Result<Answer, ApiError> {
    let core = call.core();
    match url {
        "/version" => Ok(body::json(StatusCode::OK, &version(&core.settings.version))),
        "/.well-known/openid-configuration" => Ok(body::json(
            StatusCode::OK,
            &core.signer.discovery(&call.shared.base_url),
        )),
        "/openid/v1/jwks" => Ok(body::answer(
            StatusCode::OK,
            "application/jwk-set+json",
            core.signer.jwks().to_string(),
        )),
        "" => Ok(body::json(
            StatusCode::OK,
            &json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2",
                "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"]}),
        )),
        _ => {
            let first = url
                .trim_start_matches('/')
                .split('/')
                .next()
                .unwrap_or_default();
            match first {
                "healthz" | "livez" | "readyz" => Ok(body::answer(
                    StatusCode::OK,
                    "text/plain; charset=utf-8",
                    "ok",
                )),
                _ => Err(ApiError::unknown_path()),
            }
        }
    }
}
