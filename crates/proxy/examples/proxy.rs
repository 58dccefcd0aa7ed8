//! A bare proxy over a bootstrap file, for measuring: `proxy BOOTSTRAP [WORKERS]`.

use std::process::ExitCode;
use std::time::Duration;

use lateen_proxy::run::{ProxyOptions, run};
use lateen_proxy_xds::ads;
use lateen_proxy_xds::bootstrap::{Overrides, Source, load};
use lateen_proxy_xds::decode::Context;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), workers) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: proxy BOOTSTRAP [WORKERS]");
        return ExitCode::FAILURE;
    };
    let outcome = lateen_proxy_xds::files::read_bootstrap(&path)
        .map_err(|e| e.to_string())
        .and_then(|text| {
            let source = Source {
                name: &path,
                text: &text,
            };
            let loaded = load(&[source], &Overrides::default()).map_err(|e| e.to_string())?;
            run(ProxyOptions {
                loaded,
                context: Context::files(),
                ads: ads::Options::default(),
                concurrency: workers.and_then(|w| w.parse().ok()).unwrap_or(1),
                hostname: String::new(),
                node_ip: None,
                flush_interval: Duration::from_millis(1000),
                drain_time: Duration::from_secs(600),
                drain_strategy: lateen_proxy_core::drain::Strategy::Gradual,
                termination_drain: Duration::ZERO,
                termination_grace: Duration::from_secs(5),
                max_connections: 0,
                admin_address_path: None,
                command_line: serde_json::Value::Null,
                agent: None,
                log_levels: None,
            })
            .map_err(|e| e.to_string())
        });
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}
