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

/// Applies a rule set text as one transaction.
///
/// # Errors
/// When `nft` is missing or refuses; then nothing has changed.
pub async fn apply(text: &str) -> Result<(), NftError> {
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
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
