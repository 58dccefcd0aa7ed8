//! Why a token is not accepted: Envoy's words, which clients and logs see, and its numbers, which
//! `failed_status_in_metadata` shows.

/// A reason to refuse a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is explained by its text")]
pub enum Failure {
    Missing,
    NotYetValid,
    Expired,
    BadFormat,
    HeaderBase64,
    HeaderJson,
    HeaderBadAlg,
    HeaderUnknownAlg,
    HeaderBadKid,
    PayloadBase64,
    PayloadJson,
    IssNotString,
    SubNotString,
    IatNotInteger,
    IatOutOfRange,
    NbfNotInteger,
    NbfOutOfRange,
    ExpNotInteger,
    ExpOutOfRange,
    JtiNotString,
    AudNotStrings,
    SignatureBase64,
    Ed25519SignatureLength,
    UnknownIssuer,
    AudienceNotAllowed,
    VerificationFailed,
    NoValidKeys,
    NoMatchingKey,
    FetchFailed,
}

impl Failure {
    /// The text of the answer.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.row().1
    }

    /// The number in metadata.
    #[must_use]
    pub fn number(self) -> u32 {
        self.row().0
    }

    /// The answer's status.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::AudienceNotAllowed => 403,
            _ => 401,
        }
    }

    fn row(self) -> (u32, &'static str) {
        match self {
            Self::Missing => (1, "Jwt is missing"),
            Self::NotYetValid => (2, "Jwt not yet valid"),
            Self::Expired => (3, "Jwt is expired"),
            Self::BadFormat => (
                4,
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            ),
            Self::HeaderBase64 => (5, "Jwt header is an invalid Base64url encoded"),
            Self::HeaderJson => (6, "Jwt header is an invalid JSON"),
            Self::HeaderBadAlg => (7, "Jwt header [alg] field is required and must be a string"),
            Self::HeaderUnknownAlg => (8, "Jwt header [alg] is not supported"),
            Self::HeaderBadKid => (9, "Jwt header [kid] field is not a string"),
            Self::PayloadBase64 => (10, "Jwt payload is an invalid Base64url encoded"),
            Self::PayloadJson => (11, "Jwt payload is an invalid JSON"),
            Self::IssNotString => (12, "Jwt payload [iss] field is not a string"),
            Self::SubNotString => (13, "Jwt payload [sub] field is not a string"),
            Self::IatNotInteger => (14, "Jwt payload [iat] field is not an integer"),
            Self::IatOutOfRange => (
                15,
                "Jwt payload [iat] field is not a positive 64 bit integer",
            ),
            Self::NbfNotInteger => (16, "Jwt payload [nbf] field is not an integer"),
            Self::NbfOutOfRange => (
                17,
                "Jwt payload [nbf] field is not a positive 64 bit integer",
            ),
            Self::ExpNotInteger => (18, "Jwt payload [exp] field is not an integer"),
            Self::ExpOutOfRange => (
                19,
                "Jwt payload [exp] field is not a positive 64 bit integer",
            ),
            Self::JtiNotString => (20, "Jwt payload [jti] field is not a string"),
            Self::AudNotStrings => (21, "Jwt payload [aud] field is not a string or string list"),
            Self::SignatureBase64 => (22, "Jwt signature is an invalid Base64url encoded"),
            Self::Ed25519SignatureLength => (23, "Jwt ED25519 signature is wrong length"),
            Self::UnknownIssuer => (24, "Jwt issuer is not configured"),
            Self::AudienceNotAllowed => (25, "Audiences in Jwt are not allowed"),
            Self::VerificationFailed => (26, "Jwt verification fails"),
            Self::NoValidKeys => (31, "Jwks doesn't have any valid public key"),
            Self::NoMatchingKey => (32, "Jwks doesn't have key to match kid or alg from Jwt"),
            Self::FetchFailed => (40, "Jwks remote fetch is failed"),
        }
    }
}
