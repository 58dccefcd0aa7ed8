//! What the host offers to containers: program and library directories, found once at start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::image::HostPrograms;
use super::process::spec::{Mount, MountKind};

/// Where programs are looked for, first hit wins.
const PROGRAM_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
/// Directories that are links into `/usr` on merged systems.
const TOP_DIRS: [&str; 5] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64"];
/// Read-only parts of the host that programs need.
const SHARED: [&str; 17] = [
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/share",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/services",
    "/etc/protocols",
    "/etc/iproute2",
    "/etc/localtime",
];
/// Devices every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The host's side of container roots.
#[derive(Debug, Clone, Default)]
pub struct HostTools {
    /// Links such as `/lib` to `usr/lib`.
    links: Vec<(String, String)>,
    /// Existing shared directories and files.
    shared: Vec<String>,
    /// Existing program directories.
    program_dirs: Vec<String>,
    /// Every program: name and the file behind all links.
    programs: BTreeMap<String, PathBuf>,
    devices: Vec<String>,
}

impl HostTools {
    /// Looks at the host.
    pub fn discover() -> Self {
        let mut tools = Self::default();
        for dir in TOP_DIRS {
            match std::fs::read_link(dir) {
                Ok(target) => tools
                    .links
                    .push((dir.to_owned(), target.to_string_lossy().into_owned())),
                Err(_) if Path::new(dir).is_dir() => {
                    let list = if dir.ends_with("bin") {
                        &mut tools.program_dirs
                    } else {
                        &mut tools.shared
                    };
                    list.push(dir.to_owned());
                }
                Err(_) => {}
            }
        }
        let exists = |path: &&&str| Path::new(path).exists();
        tools
            .shared
            .extend(SHARED.iter().filter(exists).map(|s| (*s).to_owned()));
        for dir in ["/usr/bin", "/usr/sbin"] {
            if Path::new(dir).is_dir() {
                tools.program_dirs.push(dir.to_owned());
            }
        }
        for dir in PROGRAM_DIRS {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if tools.programs.contains_key(&name) {
                    continue;
                }
                if let Ok(file) = entry.path().canonicalize() {
                    tools.programs.insert(name, file);
                }
            }
        }
        let devices = DEVICES.iter().map(|d| format!("/dev/{d}"));
        tools.devices = devices.filter(|d| Path::new(d).exists()).collect();
        tools
    }

    /// Links of a container's top directory.
    pub fn links(&self) -> &[(String, String)] {
        &self.links
    }

    /// Mounts that give a container libraries, data and devices.
    pub fn base_mounts(&self) -> impl Iterator<Item = Mount> {
        let shared = self.shared.iter().map(|path| bind(path, path, true));
        let devices = self.devices.iter().map(|path| bind(path, path, false));
        shared.chain(devices)
    }

    /// Mounts that give a container its programs.
    pub fn program_mounts(&self, wanted: &HostPrograms) -> Vec<Mount> {
        match wanted {
            HostPrograms::All => self
                .program_dirs
                .iter()
                .map(|dir| bind(dir, dir, true))
                .collect(),
            HostPrograms::Only(names) => names
                .iter()
                .filter_map(|name| {
                    let file = self.programs.get(name)?.to_str()?;
                    Some(bind(file, &format!("/usr/bin/{name}"), true))
                })
                .collect(),
        }
    }
}

/// A bind mount.
pub fn bind(source: &str, target: &str, readonly: bool) -> Mount {
    Mount {
        target: target.to_owned(),
        kind: MountKind::Bind(source.to_owned()),
        readonly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_shell_and_only_what_is_asked_for() {
        let tools = HostTools::discover();
        let some = tools.program_mounts(&HostPrograms::Only(vec![
            "sh".into(),
            "no-such-thing".into(),
        ]));
        assert_eq!(some.len(), 1);
        assert_eq!(some[0].target, "/usr/bin/sh");
        assert!(some[0].readonly);
        let all = tools.program_mounts(&HostPrograms::All);
        assert!(all.iter().any(|m| m.target == "/usr/bin" && m.readonly));
        assert!(
            tools
                .base_mounts()
                .any(|m| m.target == "/dev/null" && !m.readonly)
        );
    }
}
