//! What container images start: the proxy, the control plane, the redirection rules, a Bookinfo
//! service, and the first process of a pod. Told apart before the command line of people is read,
//! because their arguments are Istio's and Envoy's.

mod agent;
mod control_plane;
mod log_pattern;
mod proxy;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use crate::exit;

/// Runs the role that the arguments name; `None` when they name none.
pub fn run(args: &[OsString]) -> Option<ExitCode> {
    let called = args
        .first()
        .map(std::path::Path::new)
        .and_then(|path| path.file_name());
    let words: Vec<String> = args
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if called.is_some_and(|name| name == "istio-iptables") {
        return Some(capture(&words));
    }
    let (role, rest) = words.split_first()?;
    Some(match role.as_str() {
        lateen_cluster::node::process::entry::PAUSE => {
            lateen_cluster::node::process::entry::pause()
        }
        "istio-iptables" => capture(rest),
        "bookinfo" => exit::code(bookinfo(rest)),
        "request" => exit::code(agent::request(rest)),
        "wait" => exit::code(agent::wait(rest)),
        "proxy" => proxy::run(rest),
        "control-plane" | "discovery" => exit::code(control_plane::run(rest)),
        _ => return None,
    })
}

fn capture(args: &[String]) -> ExitCode {
    lateen_capture::main(args, &|name| std::env::var(name).ok())
}

/// The environment as the roles' libraries take it.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

const BOOKINFO: &str = "lateen bookinfo SERVICE [PORT]\n\nServes one of the sample's services (details, ratings, reviews, productpage) on PORT (9080).\n";

fn bookinfo(args: &[String]) -> anyhow::Result<()> {
    use crate::exit::{Failure, USAGE};
    let usage = |why: String| Failure::new(USAGE, why).hint(BOOKINFO.lines().next().unwrap_or(""));
    let service = match args.first().map(String::as_str) {
        Some("--help" | "-h") => return Ok(crate::style::print(BOOKINFO)?),
        Some(name) => lateen_bookinfo::Service::from_name(name)
            .ok_or_else(|| usage(format!("Bookinfo has no service \"{name}\"")))?,
        None => return Err(usage("name a service".to_owned()).into()),
    };
    let port = match args.get(1) {
        None => 9080,
        Some(text) => text
            .parse()
            .map_err(|_| usage(format!("\"{text}\" is not a port (1 to 65535)")))?,
    };
    lateen_process::logs::start("info", false)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(lateen_bookinfo::run(service, port, environment()))
}
