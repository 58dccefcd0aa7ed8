//! One ADS stream: requests in, responses out, a push of the changed types on every
//! new configuration. All decisions are the dialect's.

use std::sync::Arc;

use lateen_xds::ResourceType;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use super::connections::Listed;
use super::node::NodeInfo;
use super::server::{Ads, Caller, Source, View};
use super::state::{Dialect, LONGEST_NAME, MOST_NAMES, Outcome, Reason};

type Sender<D> = mpsc::Sender<Result<<D as Dialect>::Response, Status>>;

/// The stream is over: the proxy went away or was refused.
struct Closed;

/// Serves a stream to its end.
pub(super) async fn run<D: Dialect, S: Source>(
    server: Ads<S>,
    mut requests: Streaming<D::Request>,
    responses: Sender<D>,
    peer: String,
    caller: Caller,
) {
    let Some(Ok(first)) = requests.next().await else {
        return;
    };
    let node = match admit(D::node(&first), &caller) {
        Ok(node) => node,
        Err(status) => {
            tracing::warn!(%peer, error = status.message(), "proxy refused");
            // The receiver may be gone already; then there is nobody to tell.
            let _ = responses.send(Err(status)).await;
            return;
        }
    };
    tracing::info!(proxy = %node.display_name(), %peer, dialect = D::NAME, "proxy connected");
    for warning in &node.warnings {
        tracing::warn!(proxy = %node.display_name(), warning, "node");
    }
    let listed = server.connections.add(node.clone(), D::NAME, peer);
    let stop = server.stop.clone();
    let mut changes = server.source.changes();
    // A control plane that just started knows nothing yet, and must not say so: a proxy that
    // outlived the last one would drop all it has.
    if changes.wait_for(|number| *number > 0).await.is_err() {
        return;
    }
    let view = server.source.view(&node);
    let mut session = Session::<D, S> {
        server,
        node,
        listed,
        state: D::default(),
        view,
        responses,
    };
    if session.request(&first).await.is_err() {
        return;
    }
    loop {
        let step = tokio::select! {
            request = requests.next() => match request {
                Some(Ok(request)) => session.request(&request).await,
                _ => Err(Closed),
            },
            changed = changes.changed() => match changed {
                Ok(()) => session.push().await,
                Err(_) => Err(Closed),
            },
            () = stop.stopped() => Err(Closed),
        };
        if step.is_err() {
            break;
        }
    }
    tracing::info!(proxy = %session.node.display_name(), "proxy disconnected");
}

/// Reads the node and checks it against who the caller proved to be: a service account
/// may speak for proxies of its own namespace only.
fn admit(
    node: Option<&lateen_xds_proto::envoy::config::core::v3::Node>,
    caller: &Caller,
) -> Result<NodeInfo, Status> {
    let node = NodeInfo::parse(node).map_err(|e| Status::invalid_argument(e.to_string()))?;
    match caller {
        Caller::ServiceAccount { namespace, name } if *namespace != node.namespace => {
            Err(Status::permission_denied(format!(
                "service account {namespace}/{name} may not speak for a proxy of namespace {}",
                node.namespace
            )))
        }
        _ => Ok(node),
    }
}

/// Takes a request in as long as the names it asks for stay within bounds: each is kept for
/// as long as the stream lives.
///
/// # Errors
/// What is too long or too many, for the proxy.
pub(super) fn bounded<D: Dialect>(
    state: &mut D,
    t: ResourceType,
    request: &D::Request,
) -> Result<Outcome, Status> {
    let asked = D::asked(request);
    if let Some(long) = asked.iter().find(|n| n.len() > LONGEST_NAME) {
        return Err(Status::invalid_argument(format!(
            "a name of {} is {} bytes long, at most {LONGEST_NAME} are taken",
            t.short_name(),
            long.len()
        )));
    }
    let outcome = state.on_request(t, request);
    if state.count(t) > MOST_NAMES {
        return Err(Status::resource_exhausted(format!(
            "more than {MOST_NAMES} names of {} on one stream",
            t.short_name()
        )));
    }
    Ok(outcome)
}

struct Session<D: Dialect, S: Source> {
    server: Ads<S>,
    node: NodeInfo,
    listed: Listed,
    state: D,
    view: Arc<S::View>,
    responses: Sender<D>,
}

impl<D: Dialect, S: Source> Session<D, S> {
    async fn request(&mut self, request: &D::Request) -> Result<(), Closed> {
        let url = D::type_url(request);
        let Some(t) = ResourceType::from_type_url(url) else {
            tracing::debug!(proxy = %self.node.id, url, "a type that is not served");
            return Ok(());
        };
        let outcome = match bounded(&mut self.state, t, request) {
            Ok(outcome) => outcome,
            Err(status) => {
                let proxy = self.node.display_name();
                tracing::warn!(%proxy, error = status.message(), "stream closed");
                // The receiver may be gone already; then there is nobody to tell.
                let _ = self.responses.send(Err(status)).await;
                return Err(Closed);
            }
        };
        match &outcome {
            Outcome::Nack(message) => self.refused(t, message),
            Outcome::Respond => self.respond(t, Reason::Asked).await?,
            Outcome::Ack | Outcome::Stale => {}
        }
        self.listed.connection.update(self.state.progress());
        Ok(())
    }

    fn refused(&self, t: ResourceType, message: &str) {
        tracing::warn!(proxy = %self.node.display_name(), r#type = t.short_name(), error = ?message, "configuration refused");
        self.server.metrics.count(
            "pilot_total_xds_rejects",
            &[("type", &t.short_name().to_lowercase())],
        );
    }

    /// Pushes a new configuration, types in order, only what differs.
    async fn push(&mut self) -> Result<(), Closed> {
        self.view = self.server.source.view(&self.node);
        for t in ResourceType::PUSH_ORDER {
            if self.state.names(t).is_some() {
                self.respond(t, Reason::Changed).await?;
            }
        }
        let took = self.view.noticed().elapsed();
        self.server
            .metrics
            .observe("pilot_proxy_convergence_time", took.as_secs_f64());
        self.listed.connection.update(self.state.progress());
        Ok(())
    }

    async fn respond(&mut self, t: ResourceType, reason: Reason) -> Result<(), Closed> {
        let Some(names) = self.state.names(t) else {
            return Ok(());
        };
        let set = self.view.generate(t, &names);
        let Some(built) = self.state.respond(t, &set, self.view.version(), reason) else {
            return Ok(());
        };
        // A changed cluster warms anew and waits for endpoints, a changed listener may
        // for its routes: send them again even when they are as before.
        match t {
            ResourceType::Cluster => self.state.forget(ResourceType::Endpoint, &built.changed),
            ResourceType::Listener => {
                let routes = self.state.names(ResourceType::Route).unwrap_or_default();
                let routes: Vec<String> = routes.names.into_iter().collect();
                self.state.forget(ResourceType::Route, &routes);
            }
            _ => {}
        }
        let kind = t.short_name().to_lowercase();
        self.server
            .metrics
            .count("pilot_xds_pushes", &[("type", &kind)]);
        tracing::debug!(proxy = %self.node.display_name(), r#type = t.short_name(), changed = built.changed.len(), "push");
        let sent = self
            .responses
            .send(Ok(built.response))
            .await
            .map_err(|_| Closed);
        // On request of CDS the endpoints follow at once only when already subscribed;
        // in a push the order of types brings them next.
        if t == ResourceType::Cluster && reason == Reason::Asked {
            self.follow_endpoints().await?;
        }
        sent
    }

    async fn follow_endpoints(&mut self) -> Result<(), Closed> {
        if self.state.names(ResourceType::Endpoint).is_some() {
            Box::pin(self.respond(ResourceType::Endpoint, Reason::Changed)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_xds_proto::envoy::config::core::v3::Node;

    #[test]
    fn a_service_account_speaks_for_its_own_namespace_only() {
        let node = Node {
            id: "sidecar~10.0.0.1~reviews-v1.default~default.svc.cluster.local".into(),
            ..Node::default()
        };
        let of = |namespace: &str| Caller::ServiceAccount {
            namespace: namespace.into(),
            name: "any".into(),
        };
        assert!(admit(Some(&node), &of("default")).is_ok());
        assert!(admit(Some(&node), &Caller::Plain).is_ok());
        let refused = admit(Some(&node), &of("other")).expect_err("not its proxy");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        let nobody = admit(None, &Caller::Plain).expect_err("no node");
        assert_eq!(nobody.code(), tonic::Code::InvalidArgument);
    }
}
