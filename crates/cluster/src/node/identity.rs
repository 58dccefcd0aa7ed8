//! Who a container runs as: pure, from security contexts and the image.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::image::Image;
use super::process::spec::Identity;

/// Capability names by bit number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What container runtimes grant by default.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

fn bit(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|n| *n == name).map(|n| 1 << n)
}

/// A container's security settings in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// User, groups, capabilities.
    pub identity: Identity,
    /// All capabilities and no hidden kernel paths.
    pub privileged: bool,
    /// Read-only root file system.
    pub readonly_root: bool,
}

/// Works out the identity of a container.
///
/// # Errors
/// The message of a `CreateContainerConfigError` when `runAsNonRoot` meets user 0, or a capability
/// is unknown.
pub fn security(pod: &Pod, container: &Container, image: &Image) -> Result<Security, String> {
    let pod_context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = container.security_context.as_ref();
    let id = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
    let uid = id(own.and_then(|c| c.run_as_user))
        .or_else(|| id(pod_context.and_then(|c| c.run_as_user)))
        .unwrap_or(image.user.0);
    let gid = id(own.and_then(|c| c.run_as_group))
        .or_else(|| id(pod_context.and_then(|c| c.run_as_group)))
        // A user without a group of its own gets the image's group, or 0 as runtimes do.
        .unwrap_or(if uid == image.user.0 { image.user.1 } else { 0 });
    let non_root = own
        .and_then(|c| c.run_as_non_root)
        .or_else(|| pod_context.and_then(|c| c.run_as_non_root))
        .unwrap_or(false);
    if non_root && uid == 0 {
        return Err(format!(
            "container has runAsNonRoot and image will run as root (pod: \"{}_{}({})\", container: {})",
            pod.metadata.name.as_deref().unwrap_or_default(),
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.uid.as_deref().unwrap_or_default(),
            container.name
        ));
    }
    let mut groups: Vec<u32> = pod_context
        .into_iter()
        .flat_map(|c| c.supplemental_groups.iter().flatten().chain(&c.fs_group))
        .filter_map(|g| id(Some(*g)))
        .collect();
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    let privileged = own.and_then(|c| c.privileged).unwrap_or(false);
    let capabilities = if privileged {
        u64::MAX
    } else {
        capabilities(container)?
    };
    let escalation = own
        .and_then(|c| c.allow_privilege_escalation)
        .unwrap_or(true);
    Ok(Security {
        identity: Identity {
            uid,
            gid,
            groups,
            capabilities,
            no_new_privileges: !escalation,
        },
        privileged,
        readonly_root: own
            .and_then(|c| c.read_only_root_filesystem)
            .unwrap_or(false),
    })
}

fn capabilities(container: &Container) -> Result<u64, String> {
    let default = DEFAULT
        .iter()
        .filter_map(|n| bit(n))
        .fold(0, |all, b| all | b);
    let Some(changes) = container
        .security_context
        .as_ref()
        .and_then(|c| c.capabilities.as_ref())
    else {
        return Ok(default);
    };
    let bits = |names: &[String]| {
        names
            .iter()
            .try_fold(0, |all, name| match name.to_ascii_uppercase().as_str() {
                "ALL" => Ok(u64::MAX),
                _ => bit(name)
                    .map(|b| all | b)
                    .ok_or_else(|| format!("unknown capability {name:?}")),
            })
    };
    let drop = bits(changes.drop.as_deref().unwrap_or_default())?;
    let add = bits(changes.add.as_deref().unwrap_or_default())?;
    Ok((default & !drop) | add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(pod_context: Value, own: Value) -> Result<Security, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": own}]}
        }))
        .unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        let image = Image {
            user: (1000, 1001),
            ..Image::default()
        };
        security(&pod, &container, &image)
    }

    #[test]
    fn the_container_overrides_the_pod_and_the_pod_the_image() {
        let image = of(json!({}), json!({})).unwrap().identity;
        assert_eq!((image.uid, image.gid), (1000, 1001));
        let pod = of(
            json!({"runAsUser": 5, "fsGroup": 7, "supplementalGroups": [9]}),
            json!({}),
        )
        .unwrap();
        assert_eq!((pod.identity.uid, pod.identity.gid), (5, 0));
        assert_eq!(pod.identity.groups, [0, 7, 9]);
        let own = of(
            json!({"runAsUser": 5}),
            json!({"runAsUser": 1337, "runAsGroup": 1337}),
        )
        .unwrap();
        assert_eq!((own.identity.uid, own.identity.gid), (1337, 1337));
    }

    #[test]
    fn root_is_refused_where_forbidden() {
        let error = of(json!({"runAsNonRoot": true}), json!({"runAsUser": 0})).unwrap_err();
        assert!(
            error.starts_with("container has runAsNonRoot and image will run as root"),
            "{error}"
        );
        assert!(of(json!({"runAsNonRoot": true}), json!({})).is_ok());
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let caps = |own: Value| of(json!({}), own).unwrap().identity.capabilities;
        let net_admin = 1 << 12;
        let net_raw = 1 << 13;
        assert_eq!(caps(json!({})) & (net_admin | net_raw), net_raw);
        let istio =
            caps(json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "CAP_NET_RAW"]}}));
        assert_eq!(istio, net_admin | net_raw);
        assert_eq!(caps(json!({"privileged": true})), u64::MAX);
        assert!(of(json!({}), json!({"capabilities": {"add": ["NOPE"]}})).is_err());
        assert!(
            of(json!({}), json!({"allowPrivilegeEscalation": false}))
                .unwrap()
                .identity
                .no_new_privileges
        );
    }
}
