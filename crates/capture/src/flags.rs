//! The command line of `istio-iptables`: short and long flags and their environment twins.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{Config, Mode, Selection};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Work with these settings.
    Run(Box<Config>),
    /// Print the flags.
    Help,
}

/// A wrong command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No such flag.
    #[error("unknown flag {0}")]
    Unknown(String),
    /// A flag at the end without its value.
    #[error("flag {0} needs a value")]
    NoValue(String),
    /// A value of the wrong form.
    #[error("flag {flag}: {value:?} is not {what}")]
    Value {
        /// The flag or variable.
        flag: String,
        /// What was given.
        value: String,
        /// What is taken.
        what: &'static str,
    },
    /// A word that belongs to no flag.
    #[error("unexpected argument {0:?}")]
    Argument(String),
}

type Set = fn(&mut Config, &str) -> Result<(), &'static str>;

struct Flag {
    short: Option<char>,
    long: &'static str,
    environment: &'static str,
    /// Whether it stands alone (`--flag`) as well as with a value (`--flag=false`).
    switch: bool,
    help: &'static str,
    set: Set,
}

macro_rules! flag {
    ($short:expr, $long:literal, $env:literal, $help:literal, $set:expr) => {
        Flag {
            short: $short,
            long: $long,
            environment: $env,
            switch: false,
            help: $help,
            set: $set,
        }
    };
    (switch $short:expr, $long:literal, $env:literal, $help:literal, $set:expr) => {
        Flag {
            short: $short,
            long: $long,
            environment: $env,
            switch: true,
            help: $help,
            set: $set,
        }
    };
}

const FLAGS: &[Flag] = &[
    flag!(
        Some('p'),
        "envoy-port",
        "ENVOY_PORT",
        "port that takes outbound connections",
        |c, v| put(&mut c.proxy_port, port(v))
    ),
    flag!(
        Some('z'),
        "inbound-capture-port",
        "INBOUND_CAPTURE_PORT",
        "port that takes inbound connections",
        |c, v| put(&mut c.inbound_capture_port, port(v))
    ),
    flag!(
        Some('e'),
        "inbound-tunnel-port",
        "INBOUND_TUNNEL_PORT",
        "HBONE port, never captured",
        |c, v| put(&mut c.inbound_tunnel_port, port(v))
    ),
    flag!(
        Some('u'),
        "proxy-uid",
        "PROXY_UID",
        "users that are the proxy, a list",
        |c, v| put(&mut c.proxy_uids, list(v, id))
    ),
    flag!(
        Some('g'),
        "proxy-gid",
        "PROXY_GID",
        "groups that are the proxy, a list",
        |c, v| put(&mut c.proxy_gids, list(v, id))
    ),
    flag!(
        Some('m'),
        "istio-inbound-interception-mode",
        "INBOUND_INTERCEPTION_MODE",
        "REDIRECT or TPROXY",
        |c, v| put(&mut c.mode, mode(v))
    ),
    flag!(
        Some('b'),
        "istio-inbound-ports",
        "INBOUND_PORTS_INCLUDE",
        "inbound ports to capture: a list, * or nothing",
        |c, v| put(&mut c.inbound_ports, selection(v, port))
    ),
    flag!(
        Some('d'),
        "istio-local-exclude-ports",
        "INBOUND_PORTS_EXCLUDE",
        "inbound ports to leave, with -b *",
        |c, v| put(&mut c.inbound_exclude, list(v, port))
    ),
    flag!(
        Some('i'),
        "istio-service-cidr",
        "OUTBOUND_IP_RANGES_INCLUDE",
        "outbound ranges to capture: a list, * or nothing",
        |c, v| put(&mut c.outbound_ranges, selection(v, range))
    ),
    flag!(
        Some('x'),
        "istio-service-exclude-cidr",
        "OUTBOUND_IP_RANGES_EXCLUDE",
        "outbound ranges to leave",
        |c, v| put(&mut c.outbound_exclude_ranges, list(v, range))
    ),
    flag!(
        Some('q'),
        "istio-outbound-ports",
        "OUTBOUND_PORTS_INCLUDE",
        "outbound ports to capture in every range",
        |c, v| put(&mut c.outbound_ports, list(v, port))
    ),
    flag!(
        Some('o'),
        "istio-local-outbound-ports-exclude",
        "OUTBOUND_PORTS_EXCLUDE",
        "outbound ports to leave",
        |c, v| put(&mut c.outbound_exclude_ports, list(v, port))
    ),
    flag!(
        Some('k'),
        "kube-virt-interfaces",
        "KUBE_VIRT_INTERFACES",
        "interfaces of virtual machines",
        |c, v| put(&mut c.virtual_interfaces, list(v, interface))
    ),
    flag!(
        Some('c'),
        "istio-exclude-interfaces",
        "EXCLUDE_INTERFACES",
        "interfaces to leave alone",
        |c, v| put(&mut c.exclude_interfaces, list(v, interface))
    ),
    flag!(
        Some('t'),
        "istio-inbound-tproxy-mark",
        "INBOUND_TPROXY_MARK",
        "packet mark of TPROXY",
        |c, v| put(&mut c.tproxy_mark, id(v))
    ),
    flag!(
        Some('r'),
        "istio-inbound-tproxy-route-table",
        "INBOUND_TPROXY_ROUTE_TABLE",
        "routing table of TPROXY",
        |c, v| put(&mut c.tproxy_route_table, id(v))
    ),
    flag!(
        None,
        "outbound-owner-groups",
        "ISTIO_OUTBOUND_OWNER_GROUPS",
        "groups whose outbound traffic is captured",
        |c, v| put(&mut c.owner_groups, selection(v, id))
    ),
    flag!(
        None,
        "outbound-owner-groups-exclude",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        "groups whose outbound traffic is left",
        |c, v| put(&mut c.owner_groups_exclude, list(v, id))
    ),
    flag!(switch None, "redirect-dns", "ISTIO_META_DNS_CAPTURE", "DNS to the agent on 15053", |c, v| put(&mut c.redirect_dns, truth(v))),
    flag!(switch None, "capture-all-dns", "CAPTURE_ALL_DNS", "DNS to all servers, not only those of resolv.conf", |c, v| put(&mut c.capture_all_dns, truth(v))),
    flag!(switch None, "drop-invalid", "INVALID_DROP", "drop packets that conntrack calls invalid", |c, v| put(&mut c.drop_invalid, truth(v))),
    flag!(switch None, "dual-stack", "DUAL_STACK", "IPv6 rules whatever addresses are seen", |c, v| put(&mut c.dual_stack, truth(v))),
    flag!(switch None, "native-nftables", "NATIVE_NFTABLES", "nft instead of iptables", |c, v| put(&mut c.native_nftables, truth(v))),
    flag!(switch Some('n'), "dry-run", "DRY_RUN", "print the rules, apply nothing", |c, v| put(&mut c.dry_run, truth(v))),
    flag!(switch None, "skip-rule-apply", "SKIP_RULE_APPLY", "apply nothing", |c, v| put(&mut c.skip_rule_apply, truth(v))),
    flag!(switch None, "run-validation", "RUN_VALIDATION", "prove that a connection is captured", |c, v| put(&mut c.run_validation, truth(v))),
    flag!(
        None,
        "iptables-probe-port",
        "IPTABLES_PROBE_PORT",
        "port that validation dials",
        |c, v| put(&mut c.probe_port, port(v))
    ),
    flag!(
        None,
        "probe-timeout",
        "PROBE_TIMEOUT",
        "how long validation waits, such as 5s",
        |c, v| put(&mut c.probe_timeout, wait(v))
    ),
    flag!(switch None, "cleanup", "CLEANUP", "take the rules away", |c, v| put(&mut c.cleanup, truth(v))),
    flag!(switch None, "cleanup-only", "CLEANUP_ONLY", "as --cleanup", |c, v| put(&mut c.cleanup, truth(v))),
    flag!(switch None, "force-apply", "FORCE_APPLY", "replace rules that are in place", |c, v| put(&mut c.force_apply, truth(v))),
    flag!(switch None, "reconcile", "RECONCILE", "replace rules that are in place and differ (always done)", |_, v| truth(v).map(|_| ())),
    flag!(switch None, "restore-format", "RESTORE_FORMAT", "accepted, always so", |_, v| truth(v).map(|_| ())),
    flag!(switch None, "iptables-trace-logging", "IPTABLES_TRACE_LOGGING", "accepted, no effect", |_, v| truth(v).map(|_| ())),
    flag!(switch None, "cni-mode", "CNI_MODE", "accepted, no effect", |_, v| truth(v).map(|_| ())),
    flag!(
        None,
        "network-namespace",
        "NETWORK_NAMESPACE",
        "accepted empty: the caller enters it",
        |_, v| if v.is_empty() {
            Ok(())
        } else {
            Err("empty (enter the namespace before the call)")
        }
    ),
    flag!(
        None,
        "iptables-version",
        "IPTABLES_VERSION",
        "accepted, no effect",
        |_, _| Ok(())
    ),
    flag!(
        None,
        "log_output_level",
        "",
        "accepted: the log level is the caller's",
        |_, _| Ok(())
    ),
    flag!(None, "log_caller", "", "accepted, no effect", |_, _| Ok(())),
    flag!(
        None,
        "log_stacktrace_level",
        "",
        "accepted, no effect",
        |_, _| Ok(())
    ),
    flag!(None, "log_target", "", "accepted, no effect", |_, _| Ok(())),
    flag!(None, "vklog", "", "accepted, no effect", |_, _| Ok(())),
    flag!(switch None, "log_as_json", "", "accepted, no effect", |_, v| truth(v).map(|_| ())),
];

/// Reads the command line; a flag wins over its variable.
///
/// # Errors
/// An unknown flag, a missing value, a value of the wrong form.
pub fn parse(
    args: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Action, FlagError> {
    let mut config = Config::default();
    for flag in FLAGS.iter().filter(|flag| !flag.environment.is_empty()) {
        if let Some(value) = environment(flag.environment).filter(|value| !value.is_empty()) {
            set(flag, flag.environment, &mut config, &value)?;
        }
    }
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "-h" | "--help") {
            return Ok(Action::Help);
        }
        let (flag, name, inline) = find(word)?;
        let value = match inline {
            Some(value) => value,
            None if flag.switch => "true".to_owned(),
            None => words
                .next()
                .ok_or_else(|| FlagError::NoValue(name.clone()))?
                .clone(),
        };
        set(flag, &name, &mut config, &value)?;
    }
    Ok(Action::Run(Box::new(config)))
}

/// The flag that a word names, how it was written, and the value inside the word, if any.
fn find(word: &str) -> Result<(&'static Flag, String, Option<String>), FlagError> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let flag = FLAGS.iter().find(|flag| flag.long == name);
        let flag = flag.ok_or_else(|| FlagError::Unknown(format!("--{name}")))?;
        return Ok((flag, format!("--{name}"), value));
    }
    let Some((letter, rest)) = word.strip_prefix('-').and_then(|body| {
        let letter = body.chars().next()?;
        Some((letter, &body[letter.len_utf8()..]))
    }) else {
        return Err(FlagError::Argument(word.to_owned()));
    };
    let flag = FLAGS.iter().find(|flag| flag.short == Some(letter));
    let flag = flag.ok_or_else(|| FlagError::Unknown(format!("-{letter}")))?;
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let inline = (word.len() > 1 + letter.len_utf8()).then(|| rest.to_owned());
    Ok((flag, format!("-{letter}"), inline))
}

fn set(flag: &Flag, name: &str, config: &mut Config, value: &str) -> Result<(), FlagError> {
    (flag.set)(config, value).map_err(|what| FlagError::Value {
        flag: name.to_owned(),
        value: value.to_owned(),
        what,
    })
}

/// The flags, one a line.
#[must_use]
pub fn help() -> String {
    let mut out = String::from(
        "Sets the rules that send a pod's traffic through its proxy.\n\nUsage: istio-iptables [flags]\n\n",
    );
    for flag in FLAGS {
        let short = flag
            .short
            .map_or("    ".to_owned(), |letter| format!("-{letter}, "));
        let variable = if flag.environment.is_empty() {
            String::new()
        } else {
            format!(" [{}]", flag.environment)
        };
        let written = writeln!(out, "  {short}--{:<36}{}{variable}", flag.long, flag.help);
        debug_assert!(written.is_ok(), "writing to a String does not fail");
    }
    out
}

fn put<T>(place: &mut T, value: Result<T, &'static str>) -> Result<(), &'static str> {
    *place = value?;
    Ok(())
}

fn list<T>(text: &str, one: fn(&str) -> Result<T, &'static str>) -> Result<Vec<T>, &'static str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(one)
        .collect()
}

fn selection<T>(
    text: &str,
    one: fn(&str) -> Result<T, &'static str>,
) -> Result<Selection<T>, &'static str> {
    if text.trim() == "*" {
        return Ok(Selection::All);
    }
    list(text, one).map(Selection::Some)
}

fn port(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a port (1 to 65535)"),
        Ok(port) => Ok(port),
    }
}

fn id(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "a number")
}

fn interface(text: &str) -> Result<String, &'static str> {
    // The kernel's own rule for names (at most 15 bytes, no slash, no space), and none of the
    // characters that would end a word in the tools' input.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+@:".contains(c);
    if !text.is_empty() && text.len() < 16 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("an interface name")
    }
}

fn range(text: &str) -> Result<IpNet, &'static str> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(|net| net.trunc())
        .map_err(|_| "an address range such as 10.0.0.0/8")
}

fn mode(text: &str) -> Result<Mode, &'static str> {
    match text {
        "REDIRECT" | "" => Ok(Mode::Redirect),
        "TPROXY" => Ok(Mode::Tproxy),
        "NONE" => Ok(Mode::None),
        _ => Err("REDIRECT, TPROXY or NONE"),
    }
}

fn truth(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" | "" => Ok(false),
        _ => Err("true or false"),
    }
}

fn wait(text: &str) -> Result<Duration, &'static str> {
    const WHAT: &str = "a time such as 5s or 500ms";
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or(WHAT)?, 1000),
    };
    let number: u64 = number.parse().map_err(|_| WHAT)?;
    number
        .checked_mul(unit)
        .map(Duration::from_millis)
        .ok_or(WHAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ')
            .map(|word| {
                if word == "''" {
                    String::new()
                } else {
                    word.to_owned()
                }
            })
            .collect()
    }

    fn config(text: &str) -> Config {
        match parse(&words(text), &|_| None) {
            Ok(Action::Run(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_arguments_of_an_injected_pod() {
        let config = config(
            "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x '' -b * -d 15090,15021,15020 --log_output_level=default:info",
        );
        let expected = Config {
            inbound_ports: Selection::All,
            inbound_exclude: vec![15090, 15021, 15020],
            outbound_ranges: Selection::All,
            ..Config::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn all_spellings_of_a_flag() {
        for text in ["-p 7", "-p7", "-p=7", "--envoy-port 7", "--envoy-port=7"] {
            assert_eq!(config(text).proxy_port, 7, "{text}");
        }
        assert!(config("--run-validation").run_validation);
        assert!(!config("--run-validation=false").run_validation);
        let lists = config("-k eth1,br0 -c net1 -o 25 -q 80,81 -i 10.0.0.0/8,fd00::/8 -t 5 -r 6");
        assert_eq!(lists.virtual_interfaces, ["eth1", "br0"]);
        assert_eq!(lists.outbound_ports, [80, 81]);
        assert!(matches!(lists.outbound_ranges, Selection::Some(list) if list.len() == 2));
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (text, message) in [
            ("--nope", "unknown flag --nope"),
            ("-Q", "unknown flag -Q"),
            ("-p", "flag -p needs a value"),
            ("-p 70000", "flag -p: \"70000\" is not a port (1 to 65535)"),
            ("-p 0", "flag -p: \"0\" is not a port (1 to 65535)"),
            (
                "-m MAGIC",
                "flag -m: \"MAGIC\" is not REDIRECT, TPROXY or NONE",
            ),
            (
                "-i 10.0.0.0/33",
                "flag -i: \"10.0.0.0/33\" is not an address range such as 10.0.0.0/8",
            ),
            ("-k a;b", "flag -k: \"a;b\" is not an interface name"),
            ("extra", "unexpected argument \"extra\""),
            (
                "--dual-stack=maybe",
                "flag --dual-stack: \"maybe\" is not true or false",
            ),
        ] {
            let error = parse(&words(text), &|_| None).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let environment = |name: &str| match name {
            "ENVOY_PORT" => Some("1".to_owned()),
            "ISTIO_META_DNS_CAPTURE" => Some("true".to_owned()),
            "PROXY_UID" => Some(String::new()),
            _ => None,
        };
        let Ok(Action::Run(config)) = parse(&words("-z 2"), &environment) else {
            panic!()
        };
        assert_eq!((config.proxy_port, config.inbound_capture_port), (1, 2));
        assert!(config.redirect_dns);
        assert_eq!(config.proxy_uids, [1337]);
        let Ok(Action::Run(config)) = parse(&words("-p 3"), &environment) else {
            panic!()
        };
        assert_eq!(config.proxy_port, 3);
        let wrong = parse(&[], &|name| (name == "ENVOY_PORT").then(|| "x".to_owned()));
        assert_eq!(
            wrong.unwrap_err().to_string(),
            "flag ENVOY_PORT: \"x\" is not a port (1 to 65535)"
        );
    }

    #[test]
    fn help_lists_every_flag() {
        assert_eq!(parse(&words("-p 1 --help"), &|_| None), Ok(Action::Help));
        let help = help();
        assert!(FLAGS.iter().all(|flag| help.contains(flag.long)));
    }
}
