//! Query parameters and the choice of an answer's form by the `Accept` header.

use crate::api::core::FieldValidation;
use crate::api::error::{ApiError, Cause};
use crate::api::selector::Selectors;

/// Decoded query parameters, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

/// Decodes `%xx` and `+`.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| char::from(b).to_digit(16);
        match bytes[i] {
            b'+' => out.push(b' '),
            b'%' if i + 2 < bytes.len() => match (hex(bytes[i + 1]), hex(bytes[i + 2])) {
                (Some(a), Some(b)) => {
                    out.push(u8::try_from(a * 16 + b).unwrap_or(b'?'));
                    i += 2;
                }
                _ => out.push(b'%'),
            },
            b => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Decodes a path segment, in which `+` is itself.
pub(crate) fn decode_segment(text: &str) -> String {
    decode(&text.replace('+', "%2B"))
}

impl Params {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|p| {
                    let (k, v) = p.split_once('=').unwrap_or((p, ""));
                    (decode(k), decode(v))
                })
                .collect(),
        )
    }

    /// The first value of a parameter; empty when absent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(k, _)| k == name)
            .map_or("", |(_, v)| v.as_str())
    }

    /// `true`, `1` or present without a value.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(k, v)| k == name && matches!(v.as_str(), "true" | "1" | ""))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("unable to parse {name}={text:?} as a number"))
            }),
        }
    }

    pub(crate) fn selectors(&self) -> Result<Selectors, ApiError> {
        Selectors::parse(self.get("labelSelector"), self.get("fieldSelector"))
    }

    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        match self.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(option_error("dryRun", other, &["All"])),
        }
    }

    pub(crate) fn validation(&self) -> Result<FieldValidation, ApiError> {
        match self.get("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => Err(option_error(
                "fieldValidation",
                other,
                &["Ignore", "Strict", "Warn"],
            )),
        }
    }
}

fn option_error(name: &'static str, value: &str, allowed: &[&str]) -> ApiError {
    let cause = Cause::not_supported(name, &value.into(), allowed);
    ApiError::invalid("meta.k8s.io", "Options", "", &[cause])
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    Plain,
    /// A table, `meta.k8s.io/v1` or `v1beta1`.
    Table {
        /// The older version was asked for.
        beta: bool,
    },
    /// Metadata only.
    Partial,
    /// Aggregated discovery; the older version is the same with another name.
    Discovery {
        /// `v2beta1`.
        beta: bool,
    },
}

/// What this server answers in. JSON text is YAML text too.
const OFFERED: [&str; 2] = ["application/json", "application/yaml"];

/// Refuses a client that takes none of the media types there are.
///
/// # Errors
/// 406.
pub(crate) fn check_accept(accept: &str) -> Result<(), ApiError> {
    let taken = |part: &str| {
        let mut pieces = part.split(';').map(str::trim);
        let media = pieces.next().unwrap_or_default();
        let refused = pieces.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        !refused && (OFFERED.contains(&media) || matches!(media, "*/*" | "application/*"))
    };
    if accept.trim().is_empty() || accept.split(',').any(taken) {
        return Ok(());
    }
    Err(ApiError::not_acceptable(&OFFERED))
}

/// The first of the accepted forms that is one of those offered.
pub(crate) fn form(accept: &str, offered: impl Fn(Form) -> bool) -> Form {
    for part in accept.split(',') {
        let mut pieces = part.split(';').map(str::trim);
        let media = pieces.next().unwrap_or_default();
        if !matches!(media, "application/json" | "*/*" | "application/*") {
            continue;
        }
        let (mut shape, mut version) = ("", "");
        for piece in pieces {
            match piece.split_once('=') {
                Some(("as", v)) => shape = v,
                Some(("v", v)) => version = v,
                _ => {}
            }
        }
        let found = match (shape, version) {
            ("", _) => Form::Plain,
            ("Table", v) => Form::Table {
                beta: v == "v1beta1",
            },
            ("PartialObjectMetadata" | "PartialObjectMetadataList", _) => Form::Partial,
            ("APIGroupDiscoveryList", "v2") => Form::Discovery { beta: false },
            ("APIGroupDiscoveryList", "v2beta1") => Form::Discovery { beta: true },
            _ => continue,
        };
        if offered(found) {
            return found;
        }
    }
    Form::Plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let p = Params::parse(Some(
            "fieldSelector=metadata.name%3Da&watch=true&x=a+b&flag",
        ));
        assert_eq!(p.get("fieldSelector"), "metadata.name=a");
        assert_eq!(p.get("x"), "a b");
        assert!(p.flag("watch") && p.flag("flag") && !p.flag("nope"));
        assert_eq!(Params::parse(Some("a=%zz%4")).get("a"), "%zz%4");
        assert!(Params::parse(Some("limit=x")).number("limit").is_err());
    }

    #[test]
    fn a_client_must_take_something_there_is() {
        let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        for good in [
            "",
            "*/*",
            browser,
            typed,
            "application/yaml",
            "application/json;as=Table",
        ] {
            assert!(check_accept(good).is_ok(), "{good}");
        }
        for bad in [
            "text/html",
            "application/vnd.kubernetes.protobuf",
            "text/html, */*;q=0",
        ] {
            let e = check_accept(bad).expect_err(bad);
            assert_eq!((e.code, e.reason.as_ref()), (406, "NotAcceptable"));
            assert_eq!(
                e.message,
                "only the following media types are accepted: application/json, application/yaml"
            );
        }
    }

    #[test]
    fn accept_picks_the_first_offered_form() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(form(table, |_| true), Form::Table { beta: false });
        assert_eq!(form(table, |f| f == Form::Plain), Form::Plain);
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(form(typed, |_| true), Form::Plain);
        let d =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(form(d, |_| true), Form::Discovery { beta: false });
    }
}
