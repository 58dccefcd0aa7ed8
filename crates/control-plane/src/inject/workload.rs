//! Which workload a pod belongs to, from the object in a file or from a pod's owner.

use serde_json::Value;

/// The workload by which a pod is known in metrics and in the proxy's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// API version, such as `apps/v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Name; empty for a pod that has none yet.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

impl Workload {
    /// The workload that an object is.
    #[must_use]
    pub fn of_object(object: &Value, namespace: &str) -> Self {
        let metadata = &object["metadata"];
        let own = metadata["namespace"].as_str().filter(|n| !n.is_empty());
        Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            name: text(&metadata["name"]),
            namespace: own.unwrap_or(namespace).to_owned(),
        }
    }

    /// The workload behind a pod: the controller that owns it, and for the ReplicaSet of a
    /// Deployment and the Job of a CronJob, the one behind that.
    #[must_use]
    pub fn of_pod(pod: &Value, namespace: &str) -> Self {
        let metadata = &pod["metadata"];
        let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
        let owner = owners.into_iter().find(|owner| owner["controller"] == true);
        let Some(owner) = owner else {
            let mut of_pod = Self::of_object(pod, namespace);
            if of_pod.name.is_empty() {
                let prefix = text(&metadata["generateName"]);
                prefix.trim_end_matches('-').clone_into(&mut of_pod.name);
            }
            if of_pod.kind.is_empty() {
                "v1".clone_into(&mut of_pod.api_version);
                "Pod".clone_into(&mut of_pod.kind);
            }
            return of_pod;
        };
        let mut workload = Self {
            api_version: text(&owner["apiVersion"]),
            kind: text(&owner["kind"]),
            name: text(&owner["name"]),
            namespace: namespace.to_owned(),
        };
        let hash = metadata["labels"]["pod-template-hash"].as_str();
        let deployment = hash.and_then(|hash| {
            let prefix = workload.name.strip_suffix(hash)?.strip_suffix('-')?;
            Some(prefix.to_owned())
        });
        match (workload.kind.as_str(), deployment, cron_job(&workload.name)) {
            ("ReplicaSet", Some(name), _) => {
                "Deployment".clone_into(&mut workload.kind);
                workload.name = name;
            }
            ("Job", _, Some(name)) => {
                "CronJob".clone_into(&mut workload.kind);
                workload.name = name;
            }
            _ => {}
        }
        workload
    }

    /// `kubernetes://apis/apps/v1/namespaces/NS/deployments/NAME`.
    #[must_use]
    pub fn owner(&self) -> String {
        format!(
            "kubernetes://apis/{}/namespaces/{}/{}s/{}",
            self.api_version,
            self.namespace,
            self.kind.to_lowercase(),
            self.name
        )
    }
}

/// The CronJob that named a Job: its name and a time of 8 to 10 digits.
fn cron_job(job: &str) -> Option<String> {
    let (name, time) = job.rsplit_once('-')?;
    let digits = time.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (8..=10).contains(&time.len())).then(|| name.to_owned())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
