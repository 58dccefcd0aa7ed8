//! `proxy-config route`: which request goes where.

use clap::Args;
use serde_json::Value;

use super::dump::Dump;
use super::{Common, Output, config_name, emit, list, text};
use crate::client::ClusterArgs;
use crate::style;
use crate::table::Table;

/// `proxy-config route`.
#[derive(Debug, Clone, Args)]
pub struct Route {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    filter: Filter,
    /// Show one row a route instead of one a route configuration
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    verbose: bool,
}

/// Which route configurations.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Only the route configuration of this name, such as 9080
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Filter {
    /// The route configurations of a dump that pass, sorted by name.
    pub fn select(&self, dump: &Dump) -> anyhow::Result<Vec<Value>> {
        let mut routes = dump.routes()?;
        routes.retain(|route| {
            self.name
                .as_ref()
                .is_none_or(|name| text(route, "/name") == name)
        });
        routes.sort_by_cached_key(|route| {
            let name = text(route, "/name").to_owned();
            (name.parse::<u32>().unwrap_or(0), name)
        });
        Ok(routes)
    }
}

/// Runs the command.
pub async fn run(args: Route, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let dump = Dump::load(&args.common, cluster).await?;
    let routes = args.filter.select(&dump)?;
    match args.common.output {
        Output::Short => {
            let table = if args.verbose {
                table(&routes)
            } else {
                brief(&routes)
            };
            Ok(style::print(&table.render())?)
        }
        form => emit(&Value::Array(routes), form),
    }
}

/// One row a route configuration.
fn brief(routes: &[Value]) -> Table {
    let mut table = Table::new(["NAME", "VIRTUAL HOSTS"]);
    for route in routes {
        let hosts = list(route, "/virtualHosts").len().to_string();
        table.row(vec![text(route, "/name").to_owned(), hosts]);
    }
    table
}

/// One row a route.
pub fn table(routes: &[Value]) -> Table {
    let mut table = Table::new(["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]);
    for config in routes {
        let name = text(config, "/name");
        let hosts = list(config, "/virtualHosts");
        if hosts.is_empty() {
            table.row(vec![
                name.into(),
                String::new(),
                "*".into(),
                "/*".into(),
                "404".into(),
            ]);
        }
        for host in hosts {
            let start = [
                name.to_owned(),
                text(host, "/name").to_owned(),
                domains(host),
            ];
            let routes = list(host, "/routes");
            if routes.is_empty() {
                table.row([&start[..], &["/*".to_owned(), "404".to_owned()]].concat());
            }
            for route in routes {
                let service = config_name(&route["metadata"]);
                table.row([&start[..], &[matcher(&route["match"]), service]].concat());
            }
        }
    }
    table
}

/// The two shortest-to-say domains and how many more: ports and the longer forms are left out.
fn domains(host: &Value) -> String {
    let all: Vec<&str> = list(host, "/domains")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if all.len() <= 2 {
        return all.join(", ");
    }
    let mut short: Vec<&str> = all
        .iter()
        .copied()
        .filter(|domain| !domain.contains(':') && !domain.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    short.sort_by_key(|domain| (domain.len(), *domain));
    short.truncate(2);
    format!("{} + {} more...", short.join(", "), all.len() - short.len())
}

fn matcher(found: &Value) -> String {
    let mut parts = Vec::new();
    let path = match found {
        m if m.get("prefix").is_some() => format!("{}*", text(m, "/prefix")),
        m if m.get("path").is_some() => text(m, "/path").to_owned(),
        m if m.get("pathSeparatedPrefix").is_some() => {
            format!("PathPrefix:{}", text(m, "/pathSeparatedPrefix"))
        }
        m if m.get("safeRegex").is_some() => format!("regex {}", text(m, "/safeRegex/regex")),
        _ => "/*".to_owned(),
    };
    parts.push(path);
    if found.get("caseSensitive") == Some(&Value::Bool(false)) {
        parts.push("ignoreCase".to_owned());
    }
    let headers: Vec<&str> = list(found, "/headers")
        .iter()
        .map(|h| text(h, "/name"))
        .collect();
    if !headers.is_empty() {
        parts.push(format!("headers {}", headers.join(",")));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn domains_are_shortened_and_an_empty_host_says_404() {
        let host = json!({"name": "reviews:9080", "domains": [
            "reviews.default.svc.cluster.local", "reviews", "reviews.default.svc",
            "reviews.default", "10.96.0.7"], "routes": [
            {"match": {"prefix": "/"}},
            {"match": {"path": "/x"}, "metadata": {"filterMetadata": {"istio": {"config":
                "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/reviews"}}}}]});
        let empty = json!({"name": "blackhole:80", "domains": ["*"]});
        let routes = [json!({"name": "9080", "virtualHosts": [host, empty]})];
        let text = table(&routes).render();
        assert!(
            text.contains("reviews, reviews.default + 3 more..."),
            "{text}"
        );
        assert!(
            text.lines()
                .nth(2)
                .is_some_and(|l| l.ends_with("/x        reviews.shop")),
            "{text}"
        );
        assert!(
            text.lines()
                .nth(3)
                .is_some_and(|l| l.ends_with("/*        404")),
            "{text}"
        );
    }
}
