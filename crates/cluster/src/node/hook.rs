//! Lifecycle hooks: post-start and pre-stop, by command, HTTP request or a pause.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use tokio::time::{sleep, timeout};

use super::live::Live;
use super::probe;

/// A post-start hook may take this long: it has no limit of its own.
pub const LONGEST: Duration = Duration::from_secs(600);

/// Runs a hook.
///
/// # Errors
/// Why it failed, for the event.
pub async fn run(
    handler: &LifecycleHandler,
    container: &Container,
    live: &Live,
    pod_ip: &str,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let argv = exec.command.clone().unwrap_or_default();
        let (code, output) = live.run(argv, limit).await?;
        return if code == 0 {
            Ok(())
        } else {
            Err(format!("command exited with {code}: {}", output.trim_end()))
        };
    }
    if let Some(get) = &handler.http_get {
        let address: IpAddr = pod_ip
            .parse()
            .map_err(|_| "the pod has no address".to_owned())?;
        let asked = timeout(limit, probe::http(get, container, address)).await;
        return asked.map_err(|_| "context deadline exceeded".to_owned())?;
    }
    if let Some(pause) = &handler.sleep {
        let seconds = u64::try_from(pause.seconds).unwrap_or(0);
        sleep(Duration::from_secs(seconds).min(limit)).await;
    }
    Ok(())
}
