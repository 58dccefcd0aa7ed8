//! The settings of capture, with Istio's defaults.

use std::time::Duration;

use ipnet::IpNet;

/// How inbound connections reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// NAT `REDIRECT`: the proxy sees its own address as destination and asks the kernel.
    #[default]
    Redirect,
    /// `TPROXY`: the proxy sees the destination and keeps the source.
    Tproxy,
    /// No inbound capture.
    None,
}

/// All, none or some: how `*`, an empty text and a list are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<T> {
    /// `*`
    All,
    /// A list; empty for none.
    Some(Vec<T>),
}

impl<T> Selection<T> {
    /// Whether nothing is selected.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Selection::Some(list) if list.is_empty())
    }
}

/// The settings, with Istio's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `-p`: where outbound connections go.
    pub proxy_port: u16,
    /// `-z`: where inbound connections go.
    pub inbound_capture_port: u16,
    /// `-e`: HBONE's port, which is never captured.
    pub inbound_tunnel_port: u16,
    /// `-u`: users whose traffic is the proxy's own.
    pub proxy_uids: Vec<u32>,
    /// `-g`: groups whose traffic is the proxy's own.
    pub proxy_gids: Vec<u32>,
    /// `-m`.
    pub mode: Mode,
    /// `-b`: inbound ports to capture.
    pub inbound_ports: Selection<u16>,
    /// `-d`: inbound ports to leave, with `-b *`.
    pub inbound_exclude: Vec<u16>,
    /// `-i`: outbound ranges to capture.
    pub outbound_ranges: Selection<IpNet>,
    /// `-x`: outbound ranges to leave.
    pub outbound_exclude_ranges: Vec<IpNet>,
    /// `-q`: outbound ports to capture whatever their range.
    pub outbound_ports: Vec<u16>,
    /// `-o`: outbound ports to leave.
    pub outbound_exclude_ports: Vec<u16>,
    /// `-k`: interfaces whose inbound traffic is another machine's outbound (KubeVirt).
    pub virtual_interfaces: Vec<String>,
    /// `-c`: interfaces to leave alone.
    pub exclude_interfaces: Vec<String>,
    /// `-t`: TPROXY packet mark.
    pub tproxy_mark: u32,
    /// `-r`: TPROXY routing table.
    pub tproxy_route_table: u32,
    /// Groups whose outbound traffic is captured (`ISTIO_OUTBOUND_OWNER_GROUPS`).
    pub owner_groups: Selection<u32>,
    /// Groups whose outbound traffic is left (`ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE`).
    pub owner_groups_exclude: Vec<u32>,
    /// `--redirect-dns`: DNS to the agent on 15053.
    pub redirect_dns: bool,
    /// `--capture-all-dns`: not only to the servers of `resolv.conf`.
    pub capture_all_dns: bool,
    /// `--drop-invalid`: drop packets that conntrack calls invalid.
    pub drop_invalid: bool,
    /// `--dual-stack`: IPv6 rules even where no IPv6 address is seen.
    pub dual_stack: bool,
    /// `--native-nftables`: nft instead of iptables.
    pub native_nftables: bool,
    /// `-n`: print instead of apply.
    pub dry_run: bool,
    /// `--skip-rule-apply`.
    pub skip_rule_apply: bool,
    /// `--run-validation`: prove that a connection is captured.
    pub run_validation: bool,
    /// `--iptables-probe-port`: the port that validation dials.
    pub probe_port: u16,
    /// `--probe-timeout`.
    pub probe_timeout: Duration,
    /// `--cleanup`: take the rules away.
    pub cleanup: bool,
    /// `--force-apply`: replace other rules of ours instead of leaving equal ones.
    pub force_apply: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            proxy_port: 15001,
            inbound_capture_port: 15006,
            inbound_tunnel_port: 15008,
            proxy_uids: vec![1337],
            proxy_gids: vec![1337],
            mode: Mode::Redirect,
            inbound_ports: Selection::Some(Vec::new()),
            inbound_exclude: Vec::new(),
            outbound_ranges: Selection::Some(Vec::new()),
            outbound_exclude_ranges: Vec::new(),
            outbound_ports: Vec::new(),
            outbound_exclude_ports: Vec::new(),
            virtual_interfaces: Vec::new(),
            exclude_interfaces: Vec::new(),
            tproxy_mark: 1337,
            tproxy_route_table: 133,
            owner_groups: Selection::All,
            owner_groups_exclude: Vec::new(),
            redirect_dns: false,
            capture_all_dns: false,
            drop_invalid: false,
            dual_stack: false,
            native_nftables: false,
            dry_run: false,
            skip_rule_apply: false,
            run_validation: false,
            probe_port: 15002,
            probe_timeout: Duration::from_secs(5),
            cleanup: false,
            force_apply: false,
        }
    }
}
