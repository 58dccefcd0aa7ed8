//! What `up` needs of the machine, looked at before anything is started: one clear line with the
//! remedy for what is missing.

use std::net::TcpListener;
use std::path::PathBuf;

use crate::exit::{FAILED, Failure};

/// What was found.
pub struct Tools {
    /// This very program, to be shown inside pods.
    pub program: PathBuf,
}

/// The programs that set up redirection, and the Debian package of each.
const PROGRAMS: &[(&str, &str)] = &[("nft", "nftables"), ("iptables-restore", "iptables")];

/// Checks rights, programs and the API server's port.
pub fn check(api_port: u16) -> anyhow::Result<Tools> {
    if !nix::unistd::geteuid().is_root() {
        let why = "`lateen up` must run as root: pods are processes in network namespaces";
        return Err(Failure::new(FAILED, why).hint("run it with sudo").into());
    }
    let missing: Vec<&(&str, &str)> = PROGRAMS
        .iter()
        .filter(|(program, _)| !installed(program))
        .collect();
    if !missing.is_empty() {
        install(&missing);
    }
    if let Some((program, package)) = PROGRAMS.iter().find(|(program, _)| !installed(program)) {
        let why = format!("the program `{program}` is missing");
        return Err(Failure::new(FAILED, why)
            .hint(format!(
                "install it; on Debian and Ubuntu: apt-get install {package}"
            ))
            .into());
    }
    if let Err(error) = TcpListener::bind(("127.0.0.1", api_port)) {
        let why = format!("the API server cannot listen on 127.0.0.1:{api_port}: {error}");
        return Err(Failure::new(FAILED, why)
            .hint("stop what listens there (`lateen status` says if it is us), or take another port with --api-port")
            .into());
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(FAILED, format!("finding this program's file: {error}")))?;
    Ok(Tools { program })
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .into_iter()
        .any(|folder| folder.join(program).is_file())
}

/// Asks Debian's package manager for what is missing, where there is one; the caller looks again.
fn install(missing: &[&(&str, &str)]) {
    if !installed("apt-get") {
        return;
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    crate::style::warning(&format!(
        "installing {} with apt-get",
        packages.join(" and ")
    ));
    for args in [
        vec!["update", "-q"],
        [vec!["install", "-y", "-q"], packages].concat(),
    ] {
        // A failure shows as the program still missing, which the caller reports with the remedy.
        let _ = std::process::Command::new("apt-get")
            .args(&args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
    }
}
