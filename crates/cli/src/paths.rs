//! Where `lateen up` keeps its things, so that every other subcommand finds them.

use std::path::PathBuf;

/// The folder of the one-machine cluster: `LATEEN_HOME` if set, `/var/lib/lateen` for root, the
/// user's state folder otherwise.
pub fn home() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    if let Some(home) = set("LATEEN_HOME") {
        return home;
    }
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/lateen");
    }
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("lateen")
}

/// The kubeconfig that `lateen up` writes for its user.
pub fn kubeconfig() -> PathBuf {
    home().join("kubeconfig")
}
