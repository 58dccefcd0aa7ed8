//! `proxy-config listener`: what the proxy accepts, and where each chain leads.

use clap::Args;
use serde_json::Value;

use super::dump::Dump;
use super::{Common, Output, emit, list, text};
use crate::client::ClusterArgs;
use crate::style;
use crate::table::Table;

/// `proxy-config listener`.
#[derive(Debug, Clone, Args)]
pub struct Listener {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    filter: Filter,
    /// Show one row a filter chain instead of one a listener
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    verbose: bool,
}

/// Which listeners.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Only this address
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// Only this port
    #[arg(long, value_name = "PORT")]
    port: Option<u64>,
    /// Only listeners of this type
    #[arg(long = "type", value_name = "HTTP|TCP|HTTP+TCP")]
    kind: Option<String>,
}

impl Filter {
    /// The listeners of a dump that pass, sorted by port and address.
    pub fn select(&self, dump: &Dump) -> anyhow::Result<Vec<Value>> {
        let mut listeners = dump.listeners()?;
        listeners.retain(|listener| self.takes(listener));
        listeners.sort_by_cached_key(|l| (port(l), address(l)));
        Ok(listeners)
    }

    fn takes(&self, listener: &Value) -> bool {
        self.at_address(listener)
            && self
                .kind
                .as_ref()
                .is_none_or(|kind| kind.eq_ignore_ascii_case(kind_of(listener)))
    }

    /// Address and port as asked: the listener's own, or those of a chain of the inbound listener,
    /// which takes the connections to every port of the pod (`--address <pod IP> --port 9080` is
    /// how the callee's side is looked up).
    fn at_address(&self, listener: &Value) -> bool {
        let own_address = self
            .address
            .as_ref()
            .is_none_or(|a| addresses(listener).contains(a));
        let own_port = self.port.is_none_or(|p| port(listener) == p);
        if own_address && own_port {
            return true;
        }
        let of_a_pod = self
            .address
            .as_deref()
            .is_some_and(|a| !matches!(a, "0.0.0.0" | "::"));
        let chain_port = |wanted: u64| {
            let field = "/filterChainMatch/destinationPort";
            chains(listener).any(|c| c.pointer(field) == Some(&wanted.into()))
        };
        text(listener, "/name") == "virtualInbound" && of_a_pod && self.port.is_some_and(chain_port)
    }
}

/// Runs the command.
pub async fn run(args: Listener, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let dump = Dump::load(&args.common, cluster).await?;
    let listeners = args.filter.select(&dump)?;
    match args.common.output {
        Output::Short => {
            let table = if args.verbose {
                table(&listeners)
            } else {
                brief(&listeners)
            };
            Ok(style::print(&table.render())?)
        }
        form => emit(&Value::Array(listeners), form),
    }
}

fn brief(listeners: &[Value]) -> Table {
    let mut table = Table::new(["ADDRESSES", "PORT", "TYPE"]);
    for l in listeners {
        table.row(vec![
            addresses(l).join(","),
            port(l).to_string(),
            kind_of(l).to_owned(),
        ]);
    }
    table
}

/// One row a filter chain.
pub fn table(listeners: &[Value]) -> Table {
    let mut table = Table::new(["ADDRESSES", "PORT", "MATCH", "DESTINATION"]);
    for listener in listeners {
        let start = [addresses(listener).join(","), port(listener).to_string()];
        for chain in chains(listener) {
            table.row([&start[..], &[matcher(chain), destination(chain)]].concat());
        }
    }
    table
}

fn chains(listener: &Value) -> impl Iterator<Item = &Value> {
    list(listener, "/filterChains")
        .iter()
        .chain(listener.get("defaultFilterChain"))
}

fn address(listener: &Value) -> String {
    let address = text(listener, "/address/socketAddress/address");
    if address.is_empty() {
        text(listener, "/address/pipe/path").to_owned()
    } else {
        address.to_owned()
    }
}

fn addresses(listener: &Value) -> Vec<String> {
    let more = list(listener, "/additionalAddresses").iter();
    let more = more.map(|a| text(a, "/address/socketAddress/address").to_owned());
    std::iter::once(address(listener)).chain(more).collect()
}

fn port(listener: &Value) -> u64 {
    listener
        .pointer("/address/socketAddress/portValue")
        .and_then(Value::as_u64)
        .unwrap_or(0)
}

fn kind_of(listener: &Value) -> &'static str {
    let has = |name: &str| chains(listener).any(|c| filter(c, name).is_some());
    match (has("HttpConnectionManager"), has("TcpProxy")) {
        (true, true) => "HTTP+TCP",
        (true, false) => "HTTP",
        (false, true) => "TCP",
        (false, false) => "UNKNOWN",
    }
}

/// The configuration of a chain's network filter whose type ends in `name`.
fn filter<'a>(chain: &'a Value, name: &str) -> Option<&'a Value> {
    let filters = list(chain, "/filters").iter();
    filters
        .filter_map(|f| f.get("typedConfig"))
        .find(|c| text(c, "/@type").ends_with(name))
}

fn matcher(chain: &Value) -> String {
    let found = &chain["filterChainMatch"];
    let words = |pointer: &str| -> Vec<&str> {
        list(found, pointer)
            .iter()
            .filter_map(Value::as_str)
            .collect()
    };
    let mut parts = Vec::new();
    let names = words("/serverNames");
    if !names.is_empty() {
        parts.push(format!("SNI: {}", names.join(",")));
    }
    if let Some(transport) = found.get("transportProtocol").and_then(Value::as_str) {
        parts.push(format!("Trans: {transport}"));
    }
    let protocols = words("/applicationProtocols");
    if !protocols.is_empty() {
        parts.push(format!("App: {}", application(&protocols)));
    }
    let ranges: Vec<String> = list(found, "/prefixRanges").iter().map(range).collect();
    let port = found.get("destinationPort").and_then(Value::as_u64);
    match (ranges.is_empty(), port) {
        (true, Some(port)) => parts.push(format!("Addr: *:{port}")),
        (false, Some(port)) => parts.push(format!("Addr: {}:{port}", ranges.join(","))),
        (false, None) => parts.push(format!("Addr: {}", ranges.join(","))),
        (true, None) => {}
    }
    if parts.is_empty() {
        "ALL".to_owned()
    } else {
        parts.join("; ")
    }
}

/// The well-known groups of application protocols by the names istioctl gives them.
fn application(protocols: &[&str]) -> String {
    let mut sorted = protocols.to_vec();
    sorted.sort_unstable();
    match sorted[..] {
        [
            "istio",
            "istio-http/1.0",
            "istio-http/1.1",
            "istio-h2",
            "istio-peer-exchange",
        ]
        | [
            "istio",
            "istio-h2",
            "istio-http/1.0",
            "istio-http/1.1",
            "istio-peer-exchange",
        ] => "istio,istio-peer-exchange,istio-http/1.0,istio-http/1.1,istio-h2".to_owned(),
        ["istio-h2", "istio-http/1.0", "istio-http/1.1"] => "Istio HTTP".to_owned(),
        ["istio", "istio-peer-exchange"] => "Istio Plain".to_owned(),
        _ => protocols.join(","),
    }
}

fn range(range: &Value) -> String {
    let prefix = text(range, "/addressPrefix");
    let length = range.get("prefixLen").and_then(Value::as_u64).unwrap_or(0);
    if length == 32 || length == 128 {
        prefix.to_owned()
    } else {
        format!("{prefix}/{length}")
    }
}

fn destination(chain: &Value) -> String {
    if let Some(manager) = filter(chain, "HttpConnectionManager") {
        if let Some(name) = manager
            .pointer("/rds/routeConfigName")
            .and_then(Value::as_str)
        {
            return format!("Route: {name}");
        }
        return inline(&manager["routeConfig"]);
    }
    let Some(proxy) = filter(chain, "TcpProxy") else {
        return "Non-HTTP/Non-TCP".to_owned();
    };
    match proxy.get("cluster").and_then(Value::as_str) {
        Some(cluster) => format!("Cluster: {cluster}"),
        None => {
            let parts = list(proxy, "/weightedClusters/clusters").iter();
            let parts: Vec<String> = parts
                .map(|c| format!("{} ({})", text(c, "/name"), c["weight"]))
                .collect();
            format!("Cluster: {}", parts.join(", "))
        }
    }
}

fn inline(config: &Value) -> String {
    let mut parts = Vec::new();
    for host in list(config, "/virtualHosts") {
        for route in list(host, "/routes") {
            let cluster = text(route, "/route/cluster");
            let path = text(route, "/match/prefix");
            if cluster.starts_with("inbound|") {
                return format!("Cluster: {cluster}");
            }
            parts.push(format!("{path}*"));
        }
    }
    if parts.is_empty() {
        "Inline Route: 404".to_owned()
    } else {
        format!("Inline Route: {}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outbound() -> Value {
        json!({"name": "0.0.0.0_9080",
            "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 9080}},
            "filterChains": [{"filterChainMatch": {"transportProtocol": "raw_buffer",
                "applicationProtocols": ["http/1.1", "h2c"]},
                "filters": [{"name": "hcm", "typedConfig": {
                    "@type": "type.googleapis.com/x.HttpConnectionManager",
                    "rds": {"routeConfigName": "9080"}}}]}],
            "defaultFilterChain": {"filters": [{"name": "tcp", "typedConfig": {
                "@type": "type.googleapis.com/x.TcpProxy", "cluster": "PassthroughCluster"}}]}})
    }

    #[test]
    fn each_chain_has_its_row() {
        let text = table(&[outbound()]).render();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].contains("Trans: raw_buffer; App: http/1.1,h2c"),
            "{text}"
        );
        assert!(lines[1].ends_with("Route: 9080"), "{text}");
        assert!(lines[2].contains("ALL") && lines[2].ends_with("Cluster: PassthroughCluster"));
        assert_eq!(kind_of(&outbound()), "HTTP+TCP");
    }

    #[test]
    fn filters_take_address_port_and_type() {
        let filter = Filter {
            address: Some("0.0.0.0".into()),
            port: Some(9080),
            kind: None,
        };
        assert!(filter.takes(&outbound()));
        assert!(
            !Filter {
                port: Some(80),
                ..Filter::default()
            }
            .takes(&outbound())
        );
        assert!(
            !Filter {
                kind: Some("TCP".into()),
                ..Filter::default()
            }
            .takes(&outbound())
        );
    }
}
