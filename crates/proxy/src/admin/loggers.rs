//! `/logging`: which loggers there are and what changes their levels.

use super::State;
use super::query::Query;

/// Envoy's loggers: tools set their levels by these names. Those that mean nothing here are kept
/// and change nothing.
const ENVOYS: &[&str] = &[
    "a2a",
    "admin",
    "ai_protocol_manager",
    "alternate_protocols_cache",
    "assert",
    "aws",
    "backtrace",
    "basic_auth",
    "cache_filter",
    "client",
    "compression",
    "config",
    "conn_handler",
    "connection",
    "credential_injector",
    "decompression",
    "dns",
    "dubbo",
    "dynamic_modules",
    "envoy_bug",
    "ext_authz",
    "ext_proc",
    "file",
    "filter",
    "forward_proxy",
    "geolocation",
    "golang",
    "grpc",
    "happy_eyeballs",
    "hc",
    "health_checker",
    "http",
    "http2",
    "hystrix",
    "init",
    "io",
    "ip_tagging",
    "json_rpc",
    "jwt",
    "kafka",
    "key_value_store",
    "local_rate_limit",
    "lua",
    "main",
    "matcher",
    "mcp",
    "misc",
    "mongo",
    "multi_connection",
    "notification",
    "oauth2",
    "pool",
    "quic",
    "quic_stream",
    "rate_limit_quota",
    "rbac",
    "rds",
    "redis",
    "rocketmq",
    "router",
    "runtime",
    "secret",
    "sse",
    "stats",
    "stats_sinks",
    "tap",
    "testing",
    "thrift",
    "tracing",
    "udp",
    "upstream",
    "wasm",
    "websocket",
];
/// The names of this program's own begin so.
const OWN: &str = "lateen";

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
levels: trace debug info warning error critical off
";

/// Does what the query asks; the list of loggers. An error is the text of a 400.
pub fn change(state: &dyn State, query: &Query) -> Result<String, String> {
    let refused = |why: &str| format!("error: {why}\n\n{USAGE}{}", list(state));
    let [(name, value)] = query.pairs() else {
        return match query.pairs().is_empty() {
            true => Ok(list(state)),
            false => Err(refused("invalid number of parameters")),
        };
    };
    let set = |logger: Option<&str>, level: &str| {
        let set = state.set_level(logger, level);
        set.map_err(|why| refused(&why))
    };
    match name.as_str() {
        "level" => set(None, value)?,
        "paths" => {
            let pairs: Option<Vec<_>> = value.split(',').map(|p| p.split_once(':')).collect();
            let full = |pair: &(&str, &str)| !pair.0.is_empty() && !pair.1.is_empty();
            let pairs = pairs.filter(|all| all.iter().all(full));
            let Some(pairs) = pairs else {
                return Err(refused("empty logger name or empty logger level"));
            };
            if !pairs.iter().all(|(logger, _)| is_logger(logger)) {
                return Err(refused("unknown logger name"));
            }
            for (logger, level) in pairs {
                set(Some(logger), level)?;
            }
        }
        logger if is_logger(logger) => set(Some(logger), value)?,
        _ => return Err(refused("unknown logger name")),
    }
    Ok(list(state))
}

/// Whether a logger of that name can be set.
#[must_use]
pub fn is_logger(logger: &str) -> bool {
    ENVOYS.contains(&logger) || logger.starts_with(OWN)
}

fn list(state: &dyn State) -> String {
    let rows = state.loggers().into_iter();
    let rows = rows.map(|(name, level)| format!("  {name}: {level}\n"));
    format!("active loggers:\n{}", rows.collect::<String>())
}
