//! A container's root file system as a list of steps: pure, from image, host facts and pod files.

use super::host::{HostTools, bind};
use super::image::Image;
use super::process::spec::{Mount, MountKind, RootSpec};

/// Paths hidden from unprivileged containers, as container runtimes do.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

const DIRS: [(&str, u32); 24] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/home/app", 0o777),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/run/lock", 0o1777),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/usr", 0o755),
    ("/usr/bin", 0o755),
    ("/usr/sbin", 0o755),
    ("/usr/local", 0o755),
    ("/usr/local/bin", 0o755),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
    ("/var/spool", 0o755),
];

const LINKS: [(&str, &str); 7] = [
    ("/var/run", "/run"),
    ("/var/lock", "/run/lock"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// Where this program lies inside containers.
pub const PROGRAM: &str = "/usr/local/bin/lateen";

/// What a root depends on beside image and host.
#[derive(Debug, Clone, Default)]
pub struct RootInputs {
    /// Empty directory of the host to build on.
    pub mountpoint: String,
    /// This program on the host.
    pub program: String,
    /// Directory on the host with the pod's `hosts`, `resolv.conf` and `hostname`.
    pub pod_files: String,
    /// The pod's shared memory directory on the host.
    pub shared_memory: String,
    /// File on the host behind the termination message path.
    pub termination_log: String,
    /// `terminationMessagePath`.
    pub termination_path: String,
    /// The container's volume mounts.
    pub volumes: Vec<Mount>,
    /// User and group of the container, for `/etc/passwd`.
    pub user: (u32, u32),
    /// No masked or read-only kernel paths.
    pub privileged: bool,
    /// Read-only root.
    pub readonly: bool,
}

/// The steps that build the root.
pub fn plan(image: &Image, host: &HostTools, inputs: &RootInputs) -> RootSpec {
    let mut mounts: Vec<Mount> = host.base_mounts().collect();
    mounts.extend(host.program_mounts(&image.programs));
    mounts.push(bind(&inputs.program, PROGRAM, true));
    let mut own = |target: &str, kind: MountKind, readonly: bool| {
        mounts.push(Mount {
            target: target.to_owned(),
            kind,
            readonly,
        });
    };
    own("/proc", MountKind::Proc, false);
    own("/sys", MountKind::Sysfs, !inputs.privileged);
    own("/dev/pts", MountKind::Devpts, false);
    own("/dev/mqueue", MountKind::Mqueue, false);
    own(
        "/dev/shm",
        MountKind::Bind(inputs.shared_memory.clone()),
        false,
    );
    let mut volumes = inputs.volumes.clone();
    // Parents before children, whatever order the pod gives.
    volumes.sort_by_key(|m| m.target.trim_end_matches('/').matches('/').count());
    let covered = |path: &str| {
        volumes
            .iter()
            .any(|m| m.target.trim_end_matches('/') == path)
    };
    for file in ["hosts", "resolv.conf", "hostname"] {
        let target = format!("/etc/{file}");
        if !covered(&target) {
            mounts.push(bind(
                &format!("{}/{file}", inputs.pod_files),
                &target,
                false,
            ));
        }
    }
    if !inputs.termination_path.is_empty() {
        mounts.push(bind(
            &inputs.termination_log,
            &inputs.termination_path,
            false,
        ));
    }
    mounts.extend(volumes);
    let paths = |list: &[&str]| -> Vec<String> {
        if inputs.privileged {
            Vec::new()
        } else {
            list.iter().map(|p| (*p).to_owned()).collect()
        }
    };
    let mut links: Vec<(String, String)> = LINKS
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    links.extend(host.links().iter().cloned());
    links.extend(image.links.iter().cloned());
    RootSpec {
        mountpoint: inputs.mountpoint.clone(),
        dirs: DIRS
            .iter()
            .map(|(path, mode)| ((*path).to_owned(), *mode))
            .collect(),
        links,
        files: account_files(inputs.user),
        mounts,
        masked: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        readonly: inputs.readonly,
    }
}

/// `/etc/passwd`, `/etc/group` and name service settings.
fn account_files((uid, gid): (u32, u32)) -> Vec<(String, String, u32)> {
    let mut passwd =
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n".to_owned();
    let mut group = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n".to_owned();
    if ![0, 65534].contains(&uid) {
        passwd.push_str(&format!("app:x:{uid}:{gid}:app:/home/app:/bin/sh\n"));
    }
    if ![0, 5, 65534].contains(&gid) {
        group.push_str(&format!("app:x:{gid}:\n"));
    }
    let nss = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n";
    [
        ("/etc/passwd", passwd),
        ("/etc/group", group),
        ("/etc/nsswitch.conf", nss.to_owned()),
    ]
    .map(|(path, text)| (path.to_owned(), text, 0o644))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> RootInputs {
        RootInputs {
            mountpoint: "/s/root".into(),
            program: "/s/lateen".into(),
            pod_files: "/s/p/etc".into(),
            shared_memory: "/s/p/shm".into(),
            termination_log: "/s/p/term".into(),
            termination_path: "/dev/termination-log".into(),
            user: (1000, 1001),
            ..RootInputs::default()
        }
    }

    #[test]
    fn volumes_come_parents_first_and_cover_pod_files() {
        let mut inputs = inputs();
        inputs.volumes = vec![
            bind("/v/a", "/data/sub", false),
            bind("/v/b", "/data", false),
            bind("/v/h", "/etc/hosts", true),
        ];
        let root = plan(&Image::default(), &HostTools::default(), &inputs);
        let at = |target: &str| root.mounts.iter().position(|m| m.target == target).unwrap();
        assert!(at("/data") < at("/data/sub"));
        assert_eq!(
            root.mounts
                .iter()
                .filter(|m| m.target == "/etc/hosts")
                .count(),
            1
        );
        assert_eq!(
            root.mounts[at("/etc/hosts")].kind,
            MountKind::Bind("/v/h".into())
        );
        assert!(
            root.files
                .iter()
                .any(|(p, t, _)| p == "/etc/passwd" && t.contains("app:x:1000:1001"))
        );
    }

    #[test]
    fn privileged_containers_see_everything() {
        let mut inputs = inputs();
        assert!(
            !plan(&Image::default(), &HostTools::default(), &inputs)
                .masked
                .is_empty()
        );
        inputs.privileged = true;
        let root = plan(&Image::default(), &HostTools::default(), &inputs);
        assert!(root.masked.is_empty() && root.readonly_paths.is_empty());
    }
}
