//! Rule sets as input of `iptables-restore --noflush`, spelled as `iptables-save` spells them,
//! so that what is in place can be compared with what is wanted.

use std::fmt::Write;

use ipnet::IpNet;

use crate::rules::{Family, Match, Protocol, Rule, RuleSet, State, Table, TableRules, Target};

/// The name of a table.
#[must_use]
pub fn table_name(table: Table) -> &'static str {
    match table {
        Table::Nat => "nat",
        Table::Mangle => "mangle",
        Table::Raw => "raw",
    }
}

/// The whole set as restore input.
#[must_use]
pub fn text(set: &RuleSet) -> String {
    set.tables
        .iter()
        .map(|table| one_table(set.family, table))
        .collect()
}

fn one_table(family: Family, table: &TableRules) -> String {
    let mut out = format!("*{}\n", table_name(table.table));
    for chain in &table.chains {
        push(&mut out, format_args!(":{chain} - [0:0]\n"));
    }
    for rule in &table.rules {
        out.push_str(&restore_line(family, rule));
        out.push('\n');
    }
    out.push_str("COMMIT\n");
    out
}

fn restore_line(family: Family, rule: &Rule) -> String {
    match rule.insert {
        Some(place) => format!("-I {} {place}{}", rule.chain, spec(family, rule)),
        None => format!("-A {}{}", rule.chain, spec(family, rule)),
    }
}

/// The rule as `iptables-save` prints it.
#[must_use]
pub fn saved_line(family: Family, rule: &Rule) -> String {
    format!("-A {}{}", rule.chain, spec(family, rule))
}

/// Matches and target, each with a space in front.
fn spec(family: Family, rule: &Rule) -> String {
    let mut out = String::new();
    matches(&mut out, &rule.when);
    target(&mut out, family, rule.then);
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

fn option(out: &mut String, negated: bool, text: std::fmt::Arguments<'_>) {
    out.push_str(if negated { " ! " } else { " " });
    push(out, text);
}

fn network(net: &IpNet) -> String {
    format!("{}/{}", net.network(), net.prefix_len())
}

fn matches(out: &mut String, when: &Match) {
    if let Some((negated, net)) = &when.source {
        option(out, *negated, format_args!("-s {}", network(net)));
    }
    if let Some((negated, net)) = &when.destination {
        option(out, *negated, format_args!("-d {}", network(net)));
    }
    if let Some((negated, name)) = &when.input {
        option(out, *negated, format_args!("-i {name}"));
    }
    if let Some((negated, name)) = &when.output {
        option(out, *negated, format_args!("-o {name}"));
    }
    if let Some(protocol) = when.protocol {
        let name = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        push(out, format_args!(" -p {name}"));
        if when.source_port.is_some() || when.destination_port.is_some() {
            push(out, format_args!(" -m {name}"));
        }
    }
    if let Some((negated, port)) = when.source_port {
        option(out, negated, format_args!("--sport {port}"));
    }
    if let Some((negated, port)) = when.destination_port {
        option(out, negated, format_args!("--dport {port}"));
    }
    if let Some((negated, uid)) = when.uid {
        out.push_str(" -m owner");
        option(out, negated, format_args!("--uid-owner {uid}"));
    }
    for (negated, gid) in &when.gids {
        out.push_str(" -m owner");
        option(out, *negated, format_args!("--gid-owner {gid}"));
    }
    if let Some((negated, mark)) = when.mark {
        out.push_str(" -m mark");
        option(out, negated, format_args!("--mark {mark:#x}"));
    }
    if let Some(mark) = when.connection_mark {
        push(out, format_args!(" -m connmark --mark {mark:#x}"));
    }
    match when.state {
        Some(State::Known) => out.push_str(" -m conntrack --ctstate RELATED,ESTABLISHED"),
        Some(State::Invalid) => out.push_str(" -m conntrack --ctstate INVALID"),
        None => {}
    }
}

fn target(out: &mut String, family: Family, then: Target) {
    const ALL: &str = "0xffffffff";
    match then {
        Target::Return => out.push_str(" -j RETURN"),
        Target::Accept => out.push_str(" -j ACCEPT"),
        Target::Drop => out.push_str(" -j DROP"),
        Target::Jump(chain) => push(out, format_args!(" -j {chain}")),
        Target::Redirect(port) => push(out, format_args!(" -j REDIRECT --to-ports {port}")),
        Target::Tproxy { port, mark } => {
            let any = match family {
                Family::V4 => "0.0.0.0",
                Family::V6 => "::",
            };
            push(
                out,
                format_args!(
                    " -j TPROXY --on-port {port} --on-ip {any} --tproxy-mark {mark:#x}/{ALL}"
                ),
            );
        }
        Target::Mark(mark) => push(out, format_args!(" -j MARK --set-xmark {mark:#x}/{ALL}")),
        Target::SaveMark => push(
            out,
            format_args!(" -j CONNMARK --save-mark --nfmask {ALL} --ctmask {ALL}"),
        ),
        Target::RestoreMark => push(
            out,
            format_args!(" -j CONNMARK --restore-mark --nfmask {ALL} --ctmask {ALL}"),
        ),
        Target::Zone(zone) => push(out, format_args!(" -j CT --zone {zone}")),
    }
}

/// What `iptables-save` says of one table that concerns us: our chains, their rules, and rules
/// of built-in chains that lead to them or that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    /// Chains whose names start with `ISTIO_`.
    pub chains: Vec<String>,
    /// Rules of those chains and rules that jump to them, as printed.
    pub rules: Vec<String>,
    /// Other rules of built-in chains, as printed.
    pub foreign: Vec<String>,
}

/// Reads the part of one table out of `iptables-save`'s output.
#[must_use]
pub fn read_saved(output: &str, table: Table) -> Saved {
    let mut saved = Saved::default();
    let mut inside = false;
    for line in output.lines() {
        if let Some(name) = line.strip_prefix('*') {
            inside = name == table_name(table);
        }
        if !inside {
            continue;
        }
        if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split(' ').next().unwrap_or_default();
            if name.starts_with("ISTIO_") {
                saved.chains.push(name.to_owned());
            }
        } else if line.starts_with("-A ") {
            let ours = line.split(' ').any(|word| word.starts_with("ISTIO_"));
            let list = if ours {
                &mut saved.rules
            } else {
                &mut saved.foreign
            };
            list.push(line.to_owned());
        }
    }
    saved
}

impl Saved {
    /// Whether exactly the wanted rules are in place: ours in their order, and those without a
    /// chain of ours among the others.
    #[must_use]
    pub fn holds(&self, family: Family, wanted: &TableRules) -> bool {
        let lines = |inserted: bool| {
            let rules = wanted
                .rules
                .iter()
                .filter(move |rule| rule.insert.is_some() == inserted);
            rules.map(|rule| saved_line(family, rule))
        };
        let (ours, plain): (Vec<_>, Vec<_>) = lines(true)
            .chain(lines(false))
            .partition(|line| line.split(' ').any(|word| word.starts_with("ISTIO_")));
        let per_chain = |rules: &[String]| {
            let mut sorted = rules.to_vec();
            // Stable: chains in name order, rules of a chain in their own.
            sorted.sort_by(|a, b| a.split(' ').nth(1).cmp(&b.split(' ').nth(1)));
            sorted
        };
        per_chain(&self.rules) == per_chain(&ours)
            && plain.iter().all(|line| self.foreign.contains(line))
            && wanted
                .chains
                .iter()
                .all(|chain| self.chains.iter().any(|c| c == chain))
    }

    /// Restore input that takes our rules and chains of one table away; empty if there are none.
    #[must_use]
    pub fn removal(&self, family: Family, wanted: Option<&TableRules>, table: Table) -> String {
        let mut body = String::new();
        let mut delete = |line: &str| {
            if let Some(rest) = line.strip_prefix("-A ") {
                push(&mut body, format_args!("-D {rest}\n"));
            }
        };
        for line in self
            .rules
            .iter()
            .filter(|line| !line.starts_with("-A ISTIO_"))
        {
            delete(line);
        }
        for rule in wanted.iter().flat_map(|wanted| &wanted.rules) {
            let line = saved_line(family, rule);
            if self.foreign.contains(&line) {
                delete(&line);
            }
        }
        for chain in &self.chains {
            push(&mut body, format_args!("-F {chain}\n"));
        }
        for chain in &self.chains {
            push(&mut body, format_args!("-X {chain}\n"));
        }
        if body.is_empty() {
            return body;
        }
        format!("*{}\n{body}COMMIT\n", table_name(table))
    }
}
