//! Rule sets as input of `nft -f -`: tables of our own (`istio-proxy-nat`, `-mangle`, `-raw`),
//! replaced as a whole in one transaction.

use std::fmt::Write;

use crate::rules::{Family, Match, Protocol, RuleSet, State, Table, TableRules, Target};

/// All tables that a set may have.
pub const TABLES: [Table; 3] = [Table::Nat, Table::Mangle, Table::Raw];

/// The name of our table.
#[must_use]
pub fn table_name(table: Table) -> &'static str {
    match table {
        Table::Nat => "istio-proxy-nat",
        Table::Mangle => "istio-proxy-mangle",
        Table::Raw => "istio-proxy-raw",
    }
}

/// nft's name of the family.
#[must_use]
pub fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The set as nft input: whatever was there of ours goes, in the same transaction.
#[must_use]
pub fn text(set: &RuleSet) -> String {
    let mut out = removal(set.family);
    for table in &set.tables {
        one_table(&mut out, set.family, table);
    }
    out
}

/// Input that takes our tables away, present or not.
#[must_use]
pub fn removal(family: Family) -> String {
    let family = family_name(family);
    TABLES
        .iter()
        .map(|table| {
            let name = table_name(*table);
            // Adding first, because deleting what is not there is an error.
            format!("add table {family} {name}\ndelete table {family} {name}\n")
        })
        .collect()
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

fn one_table(out: &mut String, family: Family, table: &TableRules) {
    let name = table_name(table.table);
    push(
        out,
        format_args!("table {} {name} {{\n", family_name(family)),
    );
    // A jump may only name a chain that is already there.
    for chain in &table.chains {
        push(out, format_args!("  chain {} {{}}\n", chain_name(chain)));
    }
    let mut chains: Vec<&str> = vec!["PREROUTING", "OUTPUT"];
    chains.extend(&table.chains);
    for chain in chains {
        let rules = table.rules.iter().filter(|rule| rule.chain == chain);
        let inserted = rules.clone().filter(|rule| rule.insert.is_some());
        let ordered: Vec<_> = inserted
            .chain(rules.filter(|rule| rule.insert.is_none()))
            .collect();
        if ordered.is_empty() {
            continue;
        }
        push(out, format_args!("  chain {} {{\n", chain_name(chain)));
        if let Some(hook) = hook(table.table, chain) {
            push(out, format_args!("    {hook}\n"));
        }
        for rule in ordered {
            let mut line = String::from("   ");
            matches(&mut line, family, &rule.when);
            target(&mut line, rule.then);
            push(out, format_args!("{line}\n"));
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
}

fn chain_name(chain: &str) -> String {
    chain.to_ascii_lowercase().replace('_', "-")
}

fn hook(table: Table, chain: &str) -> Option<&'static str> {
    Some(match (table, chain) {
        (Table::Nat, "PREROUTING") => "type nat hook prerouting priority dstnat; policy accept;",
        (Table::Nat, "OUTPUT") => "type nat hook output priority -100; policy accept;",
        (Table::Mangle, "PREROUTING") => {
            "type filter hook prerouting priority mangle; policy accept;"
        }
        (Table::Mangle, "OUTPUT") => "type route hook output priority mangle; policy accept;",
        (Table::Raw, "PREROUTING") => "type filter hook prerouting priority raw; policy accept;",
        (Table::Raw, "OUTPUT") => "type filter hook output priority raw; policy accept;",
        _ => return None,
    })
}

fn sign(negated: bool) -> &'static str {
    if negated { "!= " } else { "" }
}

fn matches(out: &mut String, family: Family, when: &Match) {
    let ip = family_name(family);
    if let Some((negated, name)) = &when.input {
        push(out, format_args!(" iifname {}\"{name}\"", sign(*negated)));
    }
    if let Some((negated, name)) = &when.output {
        push(out, format_args!(" oifname {}\"{name}\"", sign(*negated)));
    }
    if let Some((negated, net)) = &when.source {
        push(out, format_args!(" {ip} saddr {}{net}", sign(*negated)));
    }
    if let Some((negated, net)) = &when.destination {
        push(out, format_args!(" {ip} daddr {}{net}", sign(*negated)));
    }
    if let Some(protocol) = when.protocol {
        let name = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        if when.source_port.is_none() && when.destination_port.is_none() {
            push(out, format_args!(" meta l4proto {name}"));
        }
        if let Some((negated, port)) = when.source_port {
            push(out, format_args!(" {name} sport {}{port}", sign(negated)));
        }
        if let Some((negated, port)) = when.destination_port {
            push(out, format_args!(" {name} dport {}{port}", sign(negated)));
        }
    }
    if let Some((negated, uid)) = when.uid {
        push(out, format_args!(" meta skuid {}{uid}", sign(negated)));
    }
    for (negated, gid) in &when.gids {
        push(out, format_args!(" meta skgid {}{gid}", sign(*negated)));
    }
    if let Some((negated, mark)) = when.mark {
        push(out, format_args!(" meta mark {}{mark}", sign(negated)));
    }
    if let Some(mark) = when.connection_mark {
        push(out, format_args!(" ct mark {mark}"));
    }
    match when.state {
        Some(State::Known) => out.push_str(" ct state related,established"),
        Some(State::Invalid) => out.push_str(" ct state invalid"),
        None => {}
    }
}

fn target(out: &mut String, then: Target) {
    match then {
        Target::Return => out.push_str(" return"),
        Target::Accept => out.push_str(" accept"),
        Target::Drop => out.push_str(" drop"),
        Target::Jump(chain) => push(out, format_args!(" jump {}", chain_name(chain))),
        Target::Redirect(port) => push(out, format_args!(" redirect to :{port}")),
        Target::Tproxy { port, mark } => {
            push(
                out,
                format_args!(" tproxy to :{port} meta mark set {mark} accept"),
            );
        }
        Target::Mark(mark) => push(out, format_args!(" meta mark set {mark}")),
        Target::SaveMark => out.push_str(" ct mark set meta mark"),
        Target::RestoreMark => out.push_str(" meta mark set ct mark"),
        Target::Zone(zone) => push(out, format_args!(" ct zone set {zone}")),
    }
}
