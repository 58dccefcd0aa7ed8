//! Running the system's `nft`: one whole transaction per call.

use std::io;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Why a rule set was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is missing.
    #[error("the program nft is not installed: install the package nftables")]
    Missing,
    /// The kernel or the parser refused; nothing was changed.
    #[error("nft refused the rules: {0}")]
    Refused(String),
    /// It could not be run.
    #[error("nft: {0}")]
    Io(#[from] io::Error),
}

/// Starts an administrator's program: by its name, else from the folders that a root shell made by
/// `su` has not in its search path.
///
/// # Errors
/// What `start` fails with; `NotFound` when it is in none of them.
pub(super) fn system_program<T>(
    name: &str,
    start: impl Fn(&str) -> io::Result<T>,
) -> io::Result<T> {
    let places = [
        name.to_owned(),
        format!("/usr/sbin/{name}"),
        format!("/sbin/{name}"),
    ];
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for place in &places {
        outcome = start(place);
        match &outcome {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
    }
    outcome
}

/// Applies a rule set text as one transaction.
///
/// # Errors
/// When `nft` is missing or refuses; then nothing has changed.
pub async fn apply(text: &str) -> Result<(), NftError> {
    let spawned = system_program("nft", |program| {
        Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    });
    let mut child = match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NftError::Missing),
        other => other?,
    };
    let input = child.stdin.take();
    let write = async move {
        match input {
            Some(mut input) => input.write_all(text.as_bytes()).await,
            None => Ok(()),
        }
    };
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(NftError::Refused(message));
    }
    Ok(written?)
}

/// Removes a table; a missing one is fine.
///
/// # Errors
/// As [`apply`].
pub async fn remove_table(name: &str) -> Result<(), NftError> {
    // Adding it first makes the removal succeed in either case.
    apply(&format!("add table ip {name}\ndelete table ip {name}\n")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_where_administrators_have_them() {
        let tried = std::cell::RefCell::new(Vec::new());
        let found = system_program("x", |place| {
            tried.borrow_mut().push(place.to_owned());
            if place == "/sbin/x" {
                Ok(7)
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        });
        assert_eq!(found.expect("the last place"), 7);
        assert_eq!(tried.into_inner(), ["x", "/usr/sbin/x", "/sbin/x"]);
        let denied = system_program("x", |_| -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        });
        let kind = denied.expect_err("denied").kind();
        assert_eq!(
            kind,
            io::ErrorKind::PermissionDenied,
            "the first word counts"
        );
    }
}
