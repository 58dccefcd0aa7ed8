//! What a control plane does to its Kubernetes cluster: keeps the CA in a Secret, publishes
//! the root to every namespace, puts it into the webhook configurations, asks whose a token
//! is, and reads the injector's settings.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lateen_process::Stop;
use lateen_sources::{
    CONFIG_MAP, Kube, KubeError, MUTATING_WEBHOOK, NODE, SECRET, VALIDATING_WEBHOOK,
};
use serde_json::{Value, json};

use crate::ads::Source as _;
use crate::auth::TokenReviewer;
use crate::ca::Authority;
use crate::inject::{InjectConfig, InjectError};
use crate::options::ControlPlaneOptions;
use crate::store::Store;

/// Audience of tokens that proxies show.
const AUDIENCE: &str = "istio-ca";
/// The root as pods mount it.
const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
/// How often what others may have undone is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How soon webhooks that are not installed yet are looked for again.
const SOON: Duration = Duration::from_millis(500);
/// Wait after a failed request at the start.
const RETRY: Duration = Duration::from_millis(500);

/// Why the injector's settings cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum InjectionError {
    /// The API server refused or could not be reached.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// The stored settings are wrong.
    #[error(transparent)]
    Unreadable(#[from] InjectError),
}

/// The injector's settings as installed in a namespace for a revision's suffix (empty, or `-` and
/// its name), with what the nodes can do; `None` where the installation has none.
///
/// # Errors
/// See [`InjectionError`].
pub async fn installed_injection(
    kube: &Kube,
    namespace: &str,
    suffix: &str,
) -> Result<Option<InjectConfig>, InjectionError> {
    let map = |name: String| async move { kube.get(CONFIG_MAP, Some(namespace), &name).await };
    let Some(injector) = map(format!("istio-sidecar-injector{suffix}")).await? else {
        return Ok(None);
    };
    let mesh = map(format!("istio{suffix}")).await?.unwrap_or_default();
    let text = |v: &Value, key: &str| v["data"][key].as_str().unwrap_or_default().to_owned();
    let config = InjectConfig::read(
        &text(&injector, "config"),
        &text(&injector, "values"),
        &text(&mesh, "mesh"),
    )?;
    let nodes = kube.list(NODE, None, "").await?;
    Ok(Some(config.for_nodes(&nodes)))
}

/// The control plane's hands in a cluster.
#[derive(Clone)]
pub struct Cluster {
    kube: Kube,
    namespace: String,
    suffix: String,
}

impl Cluster {
    /// Works through a client for a control plane with these options.
    pub fn new(kube: Kube, options: &ControlPlaneOptions) -> Self {
        Self {
            kube,
            namespace: options.namespace.clone(),
            suffix: options.suffix(),
        }
    }

    /// The CA: plugged in as Secret `cacerts`, else kept in Secret `istio-ca-secret`, else a
    /// fresh one, stored before it is used. Waits for an API server that is not there yet.
    ///
    /// # Errors
    /// A stored CA that cannot be read: a new one would cut the mesh in two.
    pub async fn authority(&self) -> anyhow::Result<Authority> {
        loop {
            match self.try_authority().await {
                Ok(authority) => return authority,
                Err(error) => {
                    tracing::warn!(%error, "the CA's Secret cannot be read yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn try_authority(&self) -> Result<anyhow::Result<Authority>, KubeError> {
        for name in ["cacerts", "istio-ca-secret"] {
            if let Some(secret) = self.kube.get(SECRET, Some(&self.namespace), name).await? {
                return Ok(
                    stored_authority(&secret).map_err(|e| e.context(format!("Secret {name}")))
                );
            }
        }
        let fresh = match Authority::self_signed(SystemTime::now()) {
            Ok(fresh) => fresh,
            Err(e) => return Ok(Err(e)),
        };
        let encode = |text: &str| BASE64.encode(text);
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "istio-ca-secret", "namespace": self.namespace},
            "type": "istio.io/ca-root",
            "data": {
                "ca-cert.pem": encode(fresh.cert_pem()),
                "ca-key.pem": encode(fresh.key_pem()),
            },
        });
        match self
            .kube
            .create(SECRET, Some(&self.namespace), secret)
            .await
        {
            Ok(_) => Ok(Ok(fresh)),
            // Another replica was faster: its CA is the CA. The caller looks again.
            Err(e) => Err(e),
        }
    }

    /// Puts the root where pods of a namespace mount it, unless it is there already.
    async fn publish_root(&self, namespace: &str, root: &str) -> Result<(), KubeError> {
        let there = self
            .kube
            .get(CONFIG_MAP, Some(namespace), ROOT_CONFIG_MAP)
            .await?;
        if there.is_some_and(|map| map["data"]["root-cert.pem"] == root) {
            return Ok(());
        }
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": ROOT_CONFIG_MAP,
                "namespace": namespace,
                "labels": {"istio.io/config": "true"},
            },
            "data": {"root-cert.pem": root},
        });
        self.kube
            .ensure(CONFIG_MAP, Some(namespace), map)
            .await
            .map(|_| ())
    }

    /// Puts the root into the webhook configurations of this revision and lets validation
    /// refuse from then on. False while the injector's is not installed.
    async fn patch_webhooks(&self, root: &str) -> Result<bool, KubeError> {
        let bundle = BASE64.encode(root);
        let injector = format!("istio-sidecar-injector{}", self.suffix);
        if self
            .kube
            .set_ca_bundle(MUTATING_WEBHOOK, &injector, &bundle)
            .await?
        {
            tracing::info!(webhook = %injector, "CA put into the webhook configuration");
        }
        let own = format!("istio-validator{}-{}", self.suffix, self.namespace);
        for name in [own.as_str(), "istiod-default-validator"] {
            self.kube
                .set_ca_bundle(VALIDATING_WEBHOOK, name, &bundle)
                .await?;
            self.fail_closed(name).await?;
        }
        let installed = self.kube.get(MUTATING_WEBHOOK, None, &injector).await?;
        Ok(installed.is_some())
    }

    /// `failurePolicy: Ignore` is how an installation starts, so that objects can be made
    /// while nobody validates; with the CA in place that time is over.
    async fn fail_closed(&self, name: &str) -> Result<(), KubeError> {
        let Some(mut found) = self.kube.get(VALIDATING_WEBHOOK, None, name).await? else {
            return Ok(());
        };
        let mut changed = false;
        for webhook in found["webhooks"].as_array_mut().into_iter().flatten() {
            if webhook["failurePolicy"] != "Fail" {
                webhook["failurePolicy"] = json!("Fail");
                changed = true;
            }
        }
        if changed {
            self.kube
                .replace(VALIDATING_WEBHOOK, None, name, found)
                .await?;
        }
        Ok(())
    }

    /// The injector's settings as installed; `None` where the installation has none.
    async fn injection(&self) -> Result<Option<InjectConfig>, KubeError> {
        match installed_injection(&self.kube, &self.namespace, &self.suffix).await {
            Ok(found) => Ok(found),
            Err(InjectionError::Unreadable(error)) => {
                tracing::warn!(%error, "injector settings kept as they were");
                Ok(None)
            }
            Err(InjectionError::Kube(error)) => Err(error),
        }
    }

    /// Reads the injector's settings into `into`.
    pub async fn refresh_injection(&self, into: &ArcSwap<InjectConfig>) {
        match self.injection().await {
            Ok(Some(config)) if config != **into.load() => into.store(Arc::new(config)),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "injector settings cannot be read"),
        }
    }

    /// Keeps roots, webhooks and injector settings right until the stop. Calls `settled` when
    /// the webhooks are in order for the first time.
    pub async fn keep(
        self,
        store: Arc<Store>,
        authority: Arc<Authority>,
        injection: Arc<ArcSwap<InjectConfig>>,
        settled: impl Fn(),
        stop: Stop,
    ) {
        let mut published: BTreeSet<String> = BTreeSet::new();
        let mut ticks = store.changes();
        let mut mesh = None;
        let began = std::time::Instant::now();
        loop {
            self.refresh_injection(&injection).await;
            let installed = match self.patch_webhooks(authority.root_pem()).await {
                Ok(installed) => installed,
                Err(error) => {
                    tracing::warn!(%error, "webhook configurations");
                    false
                }
            };
            // An installation may bring its webhooks a moment after its Deployment; one
            // without them is served just as well.
            if installed || began.elapsed() > LOOK_AGAIN {
                settled();
            }
            // Looked at again now and then, in case somebody deletes or edits it.
            published.clear();
            let again = tokio::time::sleep(if installed { LOOK_AGAIN } else { SOON });
            tokio::pin!(again);
            loop {
                self.publish_roots(&store, authority.root_pem(), &mut published)
                    .await;
                tokio::select! {
                    () = &mut again => break,
                    () = stop.stopped() => return,
                    changed = ticks.changed() => if changed.is_err() { return },
                }
                let now = store.current().snapshot.mesh.clone();
                if mesh.as_ref() != Some(&now) {
                    mesh = Some(now);
                    self.refresh_injection(&injection).await;
                }
            }
        }
    }

    async fn publish_roots(&self, store: &Store, root: &str, published: &mut BTreeSet<String>) {
        let snapshot = store.current().snapshot.clone();
        published.retain(|ns| snapshot.namespaces().contains_key(ns.as_str()));
        for namespace in snapshot.namespaces().keys() {
            if published.contains(&**namespace) {
                continue;
            }
            match self.publish_root(namespace, root).await {
                Ok(()) => {
                    published.insert(namespace.to_string());
                }
                // The namespace is going away, most likely; otherwise the next look helps.
                Err(error) => tracing::debug!(%namespace, %error, "root certificate"),
            }
        }
    }
}

#[async_trait::async_trait]
impl TokenReviewer for Cluster {
    async fn review(&self, token: &str) -> Result<(String, String), String> {
        let identity = self
            .kube
            .review_token(token, &[AUDIENCE])
            .await
            .map_err(|e| e.to_string())?;
        if !identity.authenticated {
            let why = if identity.error.is_empty() {
                "the token is not known"
            } else {
                &identity.error
            };
            return Err(why.to_owned());
        }
        // A server that knows no audiences says nothing about them; one that does must agree.
        if !identity.audiences.iter().any(|a| a == AUDIENCE) {
            return Err(format!("the token is not meant for {AUDIENCE}"));
        }
        let (namespace, name) = identity
            .service_account()
            .ok_or_else(|| format!("{} is no service account", identity.username))?;
        Ok((namespace.to_owned(), name.to_owned()))
    }
}

fn stored_authority(secret: &Value) -> anyhow::Result<Authority> {
    let field = |key: &str| -> anyhow::Result<Option<String>> {
        let Some(text) = secret["data"][key].as_str() else {
            return Ok(None);
        };
        let bytes = BASE64
            .decode(text)
            .map_err(|e| anyhow::anyhow!("{key}: {e}"))?;
        Ok(Some(
            String::from_utf8(bytes).map_err(|e| anyhow::anyhow!("{key}: {e}"))?,
        ))
    };
    let need = |key: &str| field(key)?.ok_or_else(|| anyhow::anyhow!("{key} is missing"));
    Authority::from_pem(
        &need("ca-cert.pem")?,
        &need("ca-key.pem")?,
        field("cert-chain.pem")?.as_deref().unwrap_or_default(),
        field("root-cert.pem")?.as_deref(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_ca_comes_back_and_a_broken_one_is_an_error() {
        let fresh = Authority::self_signed(SystemTime::now()).expect("a root");
        let secret = json!({"data": {
            "ca-cert.pem": BASE64.encode(fresh.cert_pem()),
            "ca-key.pem": BASE64.encode(fresh.key_pem()),
        }});
        let back = stored_authority(&secret).expect("reads");
        assert_eq!(back.root_pem(), fresh.root_pem());
        for broken in [json!({}), json!({"data": {"ca-cert.pem": "!"}})] {
            assert!(stored_authority(&broken).is_err(), "{broken}");
        }
    }
}
