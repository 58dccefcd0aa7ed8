//! Where `lateen up` keeps its things, so that every other subcommand finds them.

use std::path::PathBuf;

/// Root's home where nothing else is said.
const SYSTEM: &str = "/var/lib/lateen";

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
        return PathBuf::from(SYSTEM);
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

/// The name of this home's bridge and rules: `lateen0` for the system's own, another for any other
/// home, so that several clusters can run side by side.
pub fn instance() -> String {
    let home = home();
    if home == std::path::Path::new(SYSTEM) {
        return "lateen0".to_owned();
    }
    // FNV-1a: a stable name from a path, no secret.
    let bytes = home.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("lateen-{:08x}", hash >> 32)
}
