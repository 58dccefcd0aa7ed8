//! Putting rule sets in place with the system's tools, in the network namespace of the caller.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};

use crate::config::Config;
use crate::iptables::{self, read_saved};
use crate::nft;
use crate::rules::{Family, RuleSet, System, Table};

/// Why the rules are not in place.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Neither iptables nor nft can be run.
    #[error(
        "no iptables-restore, iptables-nft-restore, iptables-legacy-restore or nft found: install iptables or nftables"
    )]
    NoTool,
    /// A tool could not be started or talked to.
    #[error("{tool}: {source}")]
    Io {
        /// The program or file.
        tool: String,
        /// What the system says.
        source: io::Error,
    },
    /// A tool may not touch the namespace's rules.
    #[error(
        "{tool} failed: {message}\nthe rules of a pod are set with the capability NET_ADMIN: use \"add: [NET_ADMIN, NET_RAW]\" under securityContext.capabilities of the container (istio-init), as injection writes it, in a namespace whose pod security level admits it (privileged)"
    )]
    NoPermission {
        /// The program with its arguments.
        tool: String,
        /// What it wrote to its standard error.
        message: String,
    },
    /// A tool refused.
    #[error("{tool} failed ({status}): {message}{}", after(input))]
    Refused {
        /// The program.
        tool: String,
        /// Its exit status.
        status: String,
        /// What it wrote to its standard error.
        message: String,
        /// What it was given.
        input: String,
    },
    /// The rules are in place but do not capture.
    #[error("validation failed: {0}")]
    Validation(String),
}

/// The end of a refusal's message: what the tool was given, where it was given anything.
fn after(input: &str) -> String {
    if input.is_empty() {
        return String::new();
    }
    format!("\nits input was:\n{input}")
}

/// How iptables, nft and ip say that the kernel refuses the caller (EPERM, EACCES).
const FORBIDDEN: [&str; 2] = ["Operation not permitted", "Permission denied"];

impl ApplyError {
    pub(crate) fn io(tool: &str, source: io::Error) -> Self {
        Self::Io {
            tool: tool.to_owned(),
            source,
        }
    }
}

/// Looks at the namespace: IPv6 addresses, and the servers of `/etc/resolv.conf`.
///
/// # Errors
/// A file is there and cannot be read.
pub fn system() -> Result<System, ApplyError> {
    Ok(System {
        ipv6: has_ipv6(&read("/proc/thread-self/net/if_inet6")?),
        nameservers: nameservers(&read("/etc/resolv.conf")?),
    })
}

/// A file's text, empty if there is none.
fn read(path: &str) -> Result<String, ApplyError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(ApplyError::io(path, error)),
    }
}

/// `/proc/*/net/if_inet6`: address, index, prefix, scope, flags, name; scope 00 is global.
fn has_ipv6(table: &str) -> bool {
    table
        .lines()
        .any(|line| line.split_whitespace().nth(3) == Some("00"))
}

fn nameservers(file: &str) -> Vec<IpAddr> {
    file.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split('%').next()?.trim().parse().ok())
        .collect()
}

/// Which program of the system does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    /// The iptables family with this infix: none, `-nft` or `-legacy`.
    Iptables(&'static str),
    Nft,
}

fn pick(config: &Config) -> Result<Tool, ApplyError> {
    let candidates = if config.native_nftables {
        &[Tool::Nft][..]
    } else {
        &[
            Tool::Iptables(""),
            Tool::Iptables("-nft"),
            Tool::Iptables("-legacy"),
            Tool::Nft,
        ]
    };
    let installed = |tool: &&Tool| match tool {
        Tool::Iptables(kind) => answers(&format!("iptables{kind}-restore"), &["--version"]),
        Tool::Nft => answers("nft", &["--version"]),
    };
    // A tool may be there without the kernel's part of it; then the next one gets its turn.
    let works = |tool: &&&Tool| match tool {
        Tool::Iptables(kind) => answers(&format!("iptables{kind}-save"), &["-t", "nat"]),
        Tool::Nft => answers("nft", &["list", "tables"]),
    };
    let there: Vec<&Tool> = candidates.iter().filter(installed).collect();
    let chosen = there.iter().find(works).or_else(|| there.first());
    chosen.map(|tool| **tool).ok_or(ApplyError::NoTool)
}

/// Whether a program can be run with these arguments and succeeds.
fn answers(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn program(kind: &str, family: Family, what: &str) -> String {
    let six = if family == Family::V6 { "6" } else { "" };
    format!("ip{six}tables{kind}-{what}")
}

/// Runs a program with this input and gives its output.
fn feed(tool: &str, args: &[&str], input: &str) -> Result<String, ApplyError> {
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| ApplyError::io(tool, error))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A tool that stops reading says why on its standard error, so its word is waited for.
        match pipe.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(ApplyError::io(tool, error));
            }
            _ => {}
        }
    }
    let output = child
        .wait_with_output()
        .map_err(|error| ApplyError::io(tool, error))?;
    if !output.status.success() {
        let tool = [&[tool], args].concat().join(" ");
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if FORBIDDEN.iter().any(|words| message.contains(words)) {
            return Err(ApplyError::NoPermission { tool, message });
        }
        return Err(ApplyError::Refused {
            tool,
            status: output.status.to_string(),
            message,
            input: input.to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Puts the sets in place. Rules of ours that are there already are left when they are the
/// wanted ones, and replaced when they differ.
///
/// # Errors
/// No tool, or its refusal.
pub fn apply(config: &Config, sets: &[RuleSet]) -> Result<(), ApplyError> {
    let tool = pick(config)?;
    for set in sets {
        match tool {
            Tool::Nft => {
                feed("nft", &["-f", "-"], &nft::text(set))?;
                tracing::info!(family = ?set.family, "rules are in place (nft)");
            }
            Tool::Iptables(kind) => apply_iptables(config, kind, set)?,
        }
        local_route(set, true)?;
    }
    Ok(())
}

fn apply_iptables(config: &Config, kind: &str, set: &RuleSet) -> Result<(), ApplyError> {
    let saved = feed(&program(kind, set.family, "save"), &[], "")?;
    let holds = set
        .tables
        .iter()
        .all(|table| read_saved(&saved, table.table).holds(set.family, table));
    if holds && !config.force_apply {
        tracing::info!(family = ?set.family, "rules are already in place");
        return Ok(());
    }
    let input = removal(set, &saved) + &iptables::text(set);
    let restore = program(kind, set.family, "restore");
    feed(&restore, &["--noflush", "--wait=30"], &input)?;
    tracing::info!(family = ?set.family, "rules are in place ({restore})");
    Ok(())
}

/// Input that takes away what is in place of ours.
fn removal(set: &RuleSet, saved: &str) -> String {
    [Table::Nat, Table::Mangle, Table::Raw]
        .into_iter()
        .map(|table| {
            let wanted = set.tables.iter().find(|rules| rules.table == table);
            read_saved(saved, table).removal(set.family, wanted, table)
        })
        .collect()
}

/// Takes our rules away, whichever tool put them there.
///
/// # Errors
/// No tool, or its refusal.
pub fn cleanup(config: &Config, sets: &[RuleSet]) -> Result<(), ApplyError> {
    let tool = pick(config)?;
    for set in sets {
        if let Tool::Iptables(kind) = tool {
            let saved = feed(&program(kind, set.family, "save"), &[], "")?;
            let input = removal(set, &saved);
            if !input.is_empty() {
                let restore = program(kind, set.family, "restore");
                feed(&restore, &["--noflush", "--wait=30"], &input)?;
            }
        }
        if answers("nft", &["list", "tables"]) {
            feed("nft", &["-f", "-"], &nft::removal(set.family))?;
        }
        local_route(set, false)?;
        tracing::info!(family = ?set.family, "rules are gone");
    }
    Ok(())
}

/// TPROXY's policy route, added or taken away; both are right when already so.
fn local_route(set: &RuleSet, present: bool) -> Result<(), ApplyError> {
    let Some((mark, table)) = set.local_route else {
        return Ok(());
    };
    let family = match set.family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let (mark, table) = (format!("{mark:#x}"), table.to_string());
    let rules = feed("ip", &[family, "rule", "show", "fwmark", &mark], "")?;
    let there = rules.contains(&format!("lookup {table}"));
    let rule = |verb| [family, "rule", verb, "fwmark", &mark, "lookup", &table];
    if present {
        if !there {
            feed("ip", &rule("add"), "")?;
        }
        let route = [
            family, "route", "replace", "local", "default", "dev", "lo", "table", &table,
        ];
        feed("ip", &route, "")?;
    } else if there {
        feed("ip", &rule("del"), "")?;
        feed("ip", &[family, "route", "flush", "table", &table], "")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(script: &str, input: &str) -> String {
        let error = feed("sh", &["-c", script], input).expect_err("a refusal");
        error.to_string()
    }

    #[test]
    fn without_the_capability_the_remedy_is_named() {
        for words in [
            "iptables-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
            "netlink: Error: cache initialization failed: Operation not permitted",
            "RTNETLINK answers: Operation not permitted",
        ] {
            let text = refusal(&format!("echo '{words}' >&2; exit 4"), "");
            assert!(
                text.contains(words) && text.contains("capability NET_ADMIN"),
                "{text}"
            );
            assert!(!text.contains("its input was"), "{text}");
        }
    }

    #[test]
    fn a_refusal_shows_the_input_that_was_there() {
        let script = "cat >/dev/null; echo 'line 2 failed' >&2; exit 2";
        let text = refusal(script, "*nat\nx\n");
        assert!(
            text.ends_with("line 2 failed\nits input was:\n*nat\nx\n"),
            "{text}"
        );
        assert!(!text.contains("NET_ADMIN"), "{text}");
        assert!(refusal(script, "").ends_with("): line 2 failed"));
    }

    #[test]
    fn files_of_the_system_are_read() {
        let loopback = "00000000000000000000000000000001 01 80 10 80       lo\n";
        let link = "fe80000000000000000000000000abcd 02 40 20 80     eth0\n";
        let global = "fd000000000000000000000000000005 02 40 00 80     eth0\n";
        assert!(!has_ipv6(&format!("{loopback}{link}")));
        assert!(has_ipv6(&format!("{loopback}{global}")));
        let file =
            "# comment\nsearch a.b\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver x\n";
        let expected: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(nameservers(file), expected);
    }
}
