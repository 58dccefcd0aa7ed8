//! What the outcomes of alternatives come to together, and the URI that a refusal names.
use super::Failure;

/// Alternatives that failed so far. Of their failures the one that says most is told: a token
/// that was meant for an alternative tells more than one that was not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alternatives(Option<Failure>);

impl Alternatives {
    /// One more failed.
    pub fn failed(&mut self, why: Failure) {
        let weight = |f: Failure| match f {
            Failure::Missing => 0,
            Failure::UnknownIssuer => 1,
            _ => 2,
        };
        if self.0.is_none_or(|old| weight(why) >= weight(old)) {
            self.0 = Some(why);
        }
    }

    /// What it comes to, where a missing or a failed token may pass.
    ///
    /// # Errors
    /// The failure to tell.
    pub fn outcome(self, missing: bool, failed: bool) -> Result<(), Failure> {
        match self.0 {
            _ if failed => Ok(()),
            None | Some(Failure::Missing) if missing => Ok(()),
            why => Err(why.unwrap_or(Failure::Missing)),
        }
    }
}

/// Longest path in [`original_uri`], bytes.
const LONGEST_PATH: usize = 256;

/// The URI of a request for `www-authenticate`, with a long path cut.
#[must_use]
pub fn original_uri(scheme: &[u8], authority: &[u8], path: &[u8]) -> Vec<u8> {
    let path = &path[..path.len().min(LONGEST_PATH)];
    [scheme, b"://", authority, path].concat()
}
