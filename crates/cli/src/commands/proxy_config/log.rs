//! `proxy-config log`: show or set a running proxy's log levels.

use clap::Args;

use super::{Common, need_target, target};
use crate::client::ClusterArgs;
use crate::exit::{Failure, USAGE};
use crate::style;

const LEVELS: [&str; 7] = [
    "trace", "debug", "info", "warning", "error", "critical", "off",
];

/// `proxy-config log`.
#[derive(Debug, Clone, Args)]
pub struct Log {
    #[command(flatten)]
    common: Common,
    /// Level for all loggers, or `logger:level` pairs joined by commas
    #[arg(long, value_name = "[LOGGER:]LEVEL[,...]")]
    level: Option<String>,
    /// Back to the default level
    #[arg(short, long)]
    reset: bool,
}

/// Runs the command.
pub async fn run(args: Log, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let path = path(args.level.as_deref(), args.reset)?;
    let name = args.common.target.as_deref().ok_or_else(need_target)?;
    let cluster = cluster.connect().await?;
    let pod = target::resolve(&cluster, name).await?;
    let port = args.common.proxy_admin_port;
    let answer = cluster
        .pod_request(&pod.namespace, &pod.name, port, "POST", &path)
        .await?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status != 200 {
        anyhow::bail!("the proxy answered {}: {}", answer.status, body.trim());
    }
    Ok(style::print(&format!(
        "{}.{}:\n{body}",
        pod.name, pod.namespace
    ))?)
}

/// The admin path that does what was asked.
fn path(level: Option<&str>, reset: bool) -> anyhow::Result<String> {
    let level = match (level, reset) {
        (None, false) => return Ok("/logging".to_owned()),
        (_, true) => "warning",
        (Some(level), false) => level,
    };
    let known = |level: &str| {
        if LEVELS.contains(&level) {
            return Ok(());
        }
        let message = format!(
            "\"{level}\" is not a log level: use one of {}",
            LEVELS.join(", ")
        );
        Err(Failure::new(USAGE, message))
    };
    if !level.contains([':', ',']) {
        known(level)?;
        return Ok(format!("/logging?level={level}"));
    }
    for pair in level.split(',') {
        let (_, level) = pair.split_once(':').unwrap_or(("", pair));
        known(level)?;
    }
    Ok(format!("/logging?paths={level}"))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn levels_are_checked_before_the_proxy_is_asked() {
        assert_eq!(path(None, false).expect("a path"), "/logging");
        assert_eq!(
            path(Some("debug"), false).expect("a path"),
            "/logging?level=debug"
        );
        let pairs = path(Some("http:debug,pool:trace"), false).expect("a path");
        assert_eq!(pairs, "/logging?paths=http:debug,pool:trace");
        assert!(path(Some("loud"), false).is_err());
        assert!(path(Some("http:loud"), false).is_err());
    }
}
