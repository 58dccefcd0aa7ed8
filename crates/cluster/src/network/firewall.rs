//! Hosts whose firewall forbids forwarding (Docker sets that policy): a table of our own cannot
//! overrule another's "drop", so the pods' traffic is let through in the chain that drops it.

use std::io;
use std::process::Stdio;

use tokio::process::Command;

/// The comment that marks our rules.
const COMMENT: &str = "lateen pods";

/// The rules, as arguments after the action and the chain.
fn rules(bridge: &str) -> [Vec<String>; 2] {
    ["-i", "-o"].map(|direction| {
        let words = [
            direction,
            bridge,
            "-m",
            "comment",
            "--comment",
            COMMENT,
            "-j",
            "ACCEPT",
        ];
        words.map(str::to_owned).to_vec()
    })
}

/// Whether a chain's listing shows the policy "drop".
fn drops(listing: &str) -> bool {
    listing.lines().any(|line| line.trim() == "-P FORWARD DROP")
}

/// Runs `iptables`; `None` when the host has none.
async fn iptables(arguments: &[&str]) -> io::Result<Option<(bool, String)>> {
    let spawned = super::nft::system_program("iptables", |program| {
        Command::new(program)
            .arg("-w")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    });
    match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(child) => {
            let output = child.wait_with_output().await?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(Some((output.status.success(), text)))
        }
    }
}

async fn change(action: &str, rule: &[String]) -> io::Result<bool> {
    let mut arguments = vec![action, "FORWARD"];
    arguments.extend(rule.iter().map(String::as_str));
    Ok(iptables(&arguments).await?.is_some_and(|(done, _)| done))
}

/// Lets the bridge's traffic through when the host's policy is to drop; `true` when rules are
/// there now.
///
/// # Errors
/// When `iptables` exists but cannot be run.
pub async fn open(bridge: &str) -> io::Result<bool> {
    let listing = iptables(&["-S", "FORWARD"]).await?;
    if !listing.is_some_and(|(_, text)| drops(&text)) {
        return Ok(false);
    }
    for rule in rules(bridge) {
        if !change("-C", &rule).await? && !change("-I", &rule).await? {
            return Err(io::Error::other(
                "iptables did not take the rule for the pods' traffic",
            ));
        }
    }
    Ok(true)
}

/// Removes the rules; missing ones are fine.
///
/// # Errors
/// When `iptables` exists but cannot be run.
pub async fn close(bridge: &str) -> io::Result<()> {
    for rule in rules(bridge) {
        while change("-D", &rule).await? {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dropping_policy_needs_rules() {
        assert!(drops("-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n"));
        assert!(!drops("-P FORWARD ACCEPT\n-A FORWARD -j DROP\n"));
        assert_eq!(rules("br0")[1][..2], ["-o", "br0"]);
    }
}
