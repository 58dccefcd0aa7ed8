//! Exit codes and the last words of a failed command: 0 ok, 1 unknown error, 64 wrong usage,
//! 65 bad input data, 79 analysis found issues.

use std::fmt;
use std::process::ExitCode;

use crate::{client, style};

/// Something went wrong that has no code of its own.
pub const FAILED: u8 = 1;
/// The command line is not one we take.
pub const USAGE: u8 = 64;
/// The input (a file, an object) is not valid.
pub const BAD_INPUT: u8 = 65;
/// `analyze` found issues at or above the failure threshold.
pub const ANALYSIS: u8 = 79;

/// An error that carries its exit code and, where there is one, the next step.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub code: u8,
    /// What went wrong; empty where the output has said it already.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with a code and a message.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// A failure whose output is complete: only the code is left to give.
    pub fn quiet(code: u8) -> Self {
        Self::new(code, "")
    }

    /// The same with a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints what is left to say on standard error and gives the exit code.
pub fn code(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        // Help and version come this way too: those are no failures.
        let _ = error.print();
        let asked = !error.use_stderr()
            || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        return ExitCode::from(if asked { 0 } else { USAGE });
    }
    if broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    let (code, hint) = match error.downcast_ref::<Failure>() {
        Some(failure) => (failure.code, failure.hint.clone()),
        None => (FAILED, unreachable(&error)),
    };
    let message = sentence(&error);
    if !message.is_empty() {
        style::error(&message);
    }
    if let Some(hint) = hint {
        style::hint(&hint);
    }
    ExitCode::from(code)
}

/// The next step where the cluster's server does not answer.
fn unreachable(error: &anyhow::Error) -> Option<String> {
    let refused = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    let hint = "no API server answers at the kubeconfig's address: `lateen status` says whether a cluster runs on this machine; -c and --context name another";
    refused.then(|| hint.to_owned())
}

/// The chain of causes as one line. What an API server says ends it, in its own words: for an
/// object that is not there they are all there is to say.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref::<kube::Error>() {
            if status.code == 404 {
                return status.message.clone();
            }
            parts.push(status.message.clone());
            break;
        }
        if let Some(kube::Error::Service(_)) = cause.downcast_ref::<kube::Error>() {
            let server = client::server().unwrap_or("of the kubeconfig");
            let why = error.root_cause();
            parts.push(format!("the API server {server} does not answer: {why}"));
            break;
        }
        let text = cause.to_string();
        // Many errors end in the words of their cause: said once is enough.
        if !parts
            .last()
            .is_some_and(|last: &String| last.ends_with(&text))
        {
            parts.push(text);
        }
    }
    parts.join(": ")
}

/// A reader that went away (`| head`) is no failure of ours.
fn broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn refused(code: u16, message: &str) -> anyhow::Error {
        let status = serde_json::json!({"status": "Failure", "code": code, "message": message});
        let status = serde_json::from_value(status).expect("a Status");
        anyhow::Error::from(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn an_api_servers_words_are_kept_and_nothing_of_our_types() {
        let message = "pods \"nope\" not found";
        let missing = Err::<(), _>(refused(404, message)).context("asking port 15000");
        assert_eq!(sentence(&missing.expect_err("an error")), message);
        let forbidden = Err::<(), _>(refused(403, "not yours")).context("asking port 15000");
        let said = sentence(&forbidden.expect_err("an error"));
        assert_eq!(said, "asking port 15000: not yours");
        let plain = Err::<(), _>(std::io::Error::other("no")).context("reading");
        assert_eq!(sentence(&plain.expect_err("an error")), "reading: no");
        let twice = Err::<(), _>(std::io::Error::other("no")).context("reading: no");
        assert_eq!(sentence(&twice.expect_err("an error")), "reading: no");
        let service = kube::Error::Service("no route".into());
        let said = sentence(&anyhow::Error::from(service));
        // Which server is named depends on the tests of this process that connect.
        assert!(said.starts_with("the API server "), "{said}");
        assert!(said.ends_with(" does not answer: no route"), "{said}");
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(unreachable(&anyhow::Error::from(refused)).is_some());
        assert!(unreachable(&anyhow::anyhow!("no")).is_none());
    }
}
