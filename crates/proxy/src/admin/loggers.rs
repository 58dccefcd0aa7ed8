//! `/logging`: which loggers there are and what changes their levels.

use super::State;
use super::query::Query;

/// Envoy's loggers: tools set levels by these names, and look for them in the list first. Which of
/// them are of lines of ours says `crate::logger`; the others have no lines.
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
/// The level of what has none of its own, among [`State::loggers`].
const ALL: &str = "all";

/// Envoy's levels, and the short name that it takes too.
const LEVELS: &[&str] = &[
    "trace", "debug", "info", "warning", "warn", "error", "critical", "off",
];

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
usage: /logging?group=<group_name>:<level> (change group of loggers)
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
    let known = |level: &str| match LEVELS.contains(&level) {
        true => Ok(()),
        false => Err(refused("unknown logger level")),
    };
    match name.as_str() {
        "level" => {
            known(value)?;
            set(None, value)?;
        }
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
            // All of them or none.
            for (_, level) in &pairs {
                known(level)?;
            }
            for (logger, level) in pairs {
                set(Some(logger), level)?;
            }
        }
        // Empty, it asks for nothing, as in Envoy.
        "group" if value.is_empty() => {}
        "group" => {
            let why = "group parameter requires fine-grain logging to be enabled";
            return Err(refused(why));
        }
        logger if is_logger(logger) => {
            known(value)?;
            set(Some(logger), value)?;
        }
        _ => return Err(refused("unknown logger name")),
    }
    Ok(list(state))
}

/// Whether a logger of that name can be set.
#[must_use]
pub fn is_logger(logger: &str) -> bool {
    ENVOYS.contains(&logger) || logger.starts_with(OWN)
}

/// Every logger with its level, as Envoy lists them; behind them those of this program's own that
/// have a level of their own.
fn list(state: &dyn State) -> String {
    let own = state.loggers();
    let find = |logger: &str| own.iter().find(|(name, _)| name == logger);
    let all = find(ALL).map_or("info", |(_, level)| level);
    let mut text = "active loggers:\n".to_owned();
    let mut row = |name: &str, level: &str| {
        let level = if level == "warn" { "warning" } else { level };
        text.push_str(&format!("  {name}: {level}\n"));
    };
    for name in ENVOYS {
        row(name, find(name).map_or(all, |(_, level)| level));
    }
    for (name, level) in own.iter().filter(|(name, _)| name.starts_with(OWN)) {
        row(name, level);
    }
    text.push('\n');
    text
}
