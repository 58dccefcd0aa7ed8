//! The socket loop of ADS: connects, carries the state machine's requests and the server's
//! responses, publishes snapshots, and comes back after failures with jittered back-off.
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lateen_proxy_core::config::Snapshot;
use lateen_proxy_core::config::bootstrap::{Ads, Subscription, XdsMode};
use lateen_proxy_core::retry::back_off;
use lateen_xds_proto::Message;
use lateen_xds_proto::envoy::service::discovery::v3 as pb;
use tokio::sync::{Notify, watch};

use super::connect::{ClusterConnector, Connect};
use super::grpc::{Deframer, frame};
use super::secrets::SecretStreams;
use super::state::{Outcomes, Request, Response, State};
use super::tally::Tally;
use super::traffic::{Counted, Traffic};
use crate::bootstrap::{Loaded, Source};
use crate::decode::Context;
use crate::error::DecodeError;
use crate::kind::Kind;
use crate::runtime::Runtime;
use crate::world::{Now, StaticError, World};

const SOTW_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const BACK_OFF_BASE: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
const WINDOW: u32 = 4 << 20;

/// What the bootstrap cannot say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// File with a bearer token for the stream, read again at every connection.
    pub token_file: Option<PathBuf>,
}

/// What the rest of the proxy holds of its configuration. Clones share all.
#[derive(Clone)]
pub struct Handle {
    /// Snapshots as they are published.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    world: Arc<Mutex<World>>,
    status: Arc<Mutex<Status>>,
    tally: Tally,
    traffic: Arc<Traffic>,
    /// The bootstrap.
    pub loaded: Arc<Loaded>,
}

/// The ADS stream's state, for admin pages and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// A stream is open.
    pub connected: bool,
    /// Connections tried so far.
    pub attempts: u64,
    /// Connections that failed to open.
    pub failures: u64,
    /// Bytes received on all of them.
    pub received: u64,
    /// Bytes sent on all of them.
    pub sent: u64,
    /// Last failure.
    pub last_error: String,
    /// What became of the responses and files of each kind.
    pub outcomes: [Outcomes; 5],
    /// `control_plane.identifier`.
    pub control_plane: String,
}

impl Status {
    /// What became of the responses of a kind.
    #[must_use]
    pub fn outcomes(&self, kind: Kind) -> Outcomes {
        self.outcomes[kind as usize]
    }
}

impl Handle {
    /// All resources, for dumps. Held for a moment only.
    pub fn world(&self) -> MutexGuard<'_, World> {
        // A panicked holder cannot leave a half-made resource: values are replaced whole.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the subscriptions to named resources.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The ADS stream's state.
    #[must_use]
    pub fn status(&self) -> Status {
        let (received, sent) = self.traffic.counts();
        let files = self.world().file_outcomes();
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcomes = status.outcomes;
        for (all, of_files) in outcomes.iter_mut().zip(files) {
            all.accepted += of_files.accepted;
            all.rejected += of_files.rejected;
            all.failed += of_files.failed;
        }
        Status {
            received,
            sent,
            outcomes,
            ..status.clone()
        }
    }
}

/// The client; run it once.
pub struct AdsClient {
    handle: Handle,
    publish: watch::Sender<Arc<Snapshot>>,
    state: Option<State>,
    ads: Option<Ads>,
    options: Options,
    connector: Option<Arc<dyn Connect>>,
    started: Instant,
    /// Told when a secret came over a stream of its own.
    changed: Arc<Notify>,
    /// Files are read and watched.
    files_opened: bool,
    secrets: Mutex<SecretStreams>,
}

/// Decodes static resources, publishes the first snapshot, and prepares the client.
///
/// # Errors
/// When a static resource is not acceptable.
pub fn start(
    mut loaded: Loaded,
    mut context: Context,
    options: Options,
) -> Result<(Handle, AdsClient), StaticError> {
    context.runtime = Runtime::new(&loaded.bootstrap.runtime);
    let started = Instant::now();
    let now = now_since(started);
    let texts = loaded.texts.iter();
    let texts: Vec<_> = texts.map(|(name, text)| Source { name, text }).collect();
    let in_file = |error: StaticError| {
        let file = loaded.file.clone();
        StaticError { file, ..error }.located(&texts)
    };
    let mut world = World::new(context, &loaded.fixed, now).map_err(in_file)?;
    if loaded.bootstrap.ads.is_none() {
        world.needs_nothing(&loaded.fixed).map_err(in_file)?;
    }
    loaded.texts = Vec::new();
    let mut wildcard = Vec::new();
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let [cds, lds] = [&loaded.bootstrap.cds, &loaded.bootstrap.lds];
    for (kind, from) in [(Kind::Cluster, cds), (Kind::Listener, lds)] {
        let timeout = from.as_ref().and_then(Subscription::over_ads);
        wildcard.extend(timeout.map(|d| (kind, ms(d))));
    }
    let file = |from: &Option<Subscription>| from.as_ref().and_then(Subscription::file).cloned();
    let clusters_over_ads = wildcard.iter().any(|(kind, _)| *kind == Kind::Cluster);
    world.set_files(file(cds), file(lds), clusters_over_ads);
    let mut state = loaded.bootstrap.ads.as_ref().map(|ads| {
        State::new(
            ads.mode,
            loaded.node.clone(),
            ads.set_node_on_first_message_only,
            wildcard,
        )
    });
    match &mut state {
        Some(state) => {
            // Not connected yet: this only settles the static resources.
            let requests = state.poll(&mut world, now);
            debug_assert!(requests.is_empty());
        }
        None => settle_alone(&mut world, now),
    }
    let first = world.publish().unwrap_or_default();
    let (publish, snapshots) = watch::channel(first);
    let ads = loaded.bootstrap.ads.clone();
    let handle = Handle {
        snapshots,
        world: Arc::new(Mutex::new(world)),
        status: Arc::default(),
        tally: state.as_ref().map(|s| s.tally.clone()).unwrap_or_default(),
        traffic: Arc::default(),
        loaded: Arc::new(loaded),
    };
    let changed = Arc::new(Notify::new());
    let secrets = SecretStreams::new(handle.clone(), started, changed.clone());
    let client = AdsClient {
        changed,
        files_opened: false,
        secrets: Mutex::new(secrets),
        handle: handle.clone(),
        publish,
        state,
        ads,
        options,
        connector: None,
        started,
    };
    Ok((handle, client))
}

/// What [`State::poll`] does, without a management server: the start waits for
/// secrets of other sources alone.
fn settle_alone(world: &mut World, now: Now) {
    world.settle(now);
    let warming = world.is_warming(Kind::Cluster) || world.is_warming(Kind::Listener);
    if !warming && world.files_were_read() {
        world.set_initialized();
    }
}

/// The present moment, by a monotonic start.
pub(super) fn now_since(started: Instant) -> Now {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Now {
        mono_ms: ms(started.elapsed()),
        unix_ms: ms(unix),
    }
}

impl AdsClient {
    /// Uses another way to connect than the xDS cluster's own settings.
    pub fn with_connector(&mut self, connector: Arc<dyn Connect>) {
        self.connector = Some(connector);
    }

    /// Has the files that resources come from read and watched; [`AdsClient::run`] does so where it
    /// was not done.
    ///
    /// # Errors
    /// When a file that the bootstrap names is not there or cannot be watched.
    pub fn open_files(&mut self) -> Result<(), StaticError> {
        let wrong = |(field, error): (&str, DecodeError)| StaticError {
            file: self.handle.loaded.file.clone(),
            list: "dynamic_resources",
            index: 0,
            name: field.to_owned(),
            error,
        };
        self.handle.world().open_files().map_err(wrong)?;
        self.files_opened = true;
        Ok(())
    }

    /// Runs until the task is dropped. Without ADS it looks after secrets and files.
    pub async fn run(mut self) {
        if !self.files_opened
            && let Err(error) = self.open_files()
        {
            tracing::error!(target: "config", %error, "files");
        }
        let (Some(mut state), Some(ads)) = (self.state.take(), self.ads.clone()) else {
            return self.alone().await;
        };
        let mut failures = 0;
        loop {
            let before = state.accepted + state.rejected;
            let error = match self.stream(&mut state, &ads).await {
                Ok(()) => "the server closed the stream".to_owned(),
                Err(e) => e.to_string(),
            };
            state.disconnect();
            failures = if state.accepted + state.rejected > before {
                0
            } else {
                failures + 1
            };
            let wait = back_off(BACK_OFF_BASE, BACK_OFF_MAX, failures, fastrand::u64(..));
            tracing::warn!(target: "config", cluster = %ads.cluster, %error, retry_ms = wait.as_millis(), "ADS stream ended");
            self.set_status(|s| {
                s.connected = false;
                s.outcomes = state.outcomes;
                s.last_error = error;
            });
            self.wait(&mut state, wait).await;
        }
    }

    /// Without a management server: secrets of files and of streams of their own.
    async fn alone(&self) {
        loop {
            self.reconcile_secrets();
            let deadline = {
                let mut world = self.handle.world();
                settle_alone(&mut world, self.now());
                self.publish(&mut world);
                world.next_deadline()
            };
            let deadline = deadline.map(|ms| self.started + Duration::from_millis(ms));
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Starts and ends the streams of secrets.
    fn reconcile_secrets(&self) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.reconcile();
    }

    fn now(&self) -> Now {
        now_since(self.started)
    }

    fn set_status(&self, f: impl FnOnce(&mut Status)) {
        f(&mut self
            .handle
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits between connections; fetch timeouts go on running.
    async fn wait(&self, state: &mut State, wait: Duration) {
        let end = Instant::now() + wait;
        while Instant::now() < end {
            self.reconcile_secrets();
            let deadline = self.deadline(state);
            let until = deadline.map_or(end, |d| d.min(end));
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
            let requests = self.poll(state);
            debug_assert!(requests.is_empty(), "nothing to send without a stream");
        }
    }

    fn deadline(&self, state: &State) -> Option<Instant> {
        let ms = state.next_deadline(&self.handle.world())?;
        Some(self.started + Duration::from_millis(ms))
    }

    fn poll(&self, state: &mut State) -> Vec<Request> {
        let mut world = self.handle.world();
        let requests = state.poll(&mut world, self.now());
        self.publish(&mut world);
        requests
    }

    fn publish(&self, world: &mut World) {
        if let Some(snapshot) = world.publish() {
            self.publish.send_replace(snapshot);
        }
    }

    fn connector(&self, ads: &Ads) -> io::Result<Arc<dyn Connect>> {
        match &self.connector {
            Some(c) => Ok(c.clone()),
            None => {
                let snapshot = self.handle.world().snapshot();
                Ok(Arc::new(
                    ClusterConnector::new(&ads.cluster, snapshot).map_err(io::Error::other)?,
                ))
            }
        }
    }

    /// One stream, from connect to its end.
    async fn stream(&self, state: &mut State, ads: &Ads) -> io::Result<()> {
        let connector = self.connector(ads)?;
        self.set_status(|s| s.attempts += 1);
        let opened = connector.connect().await;
        let io = opened.inspect_err(|_| self.set_status(|s| s.failures += 1))?;
        let io = Counted {
            io,
            traffic: self.handle.traffic.clone(),
        };
        let request = self.request(ads, &*connector)?;
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .enable_push(false)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        // The connection runs beside the stream and ends with it.
        tokio::pin!(connection);
        tokio::select! {
            end = &mut connection => end.map_err(io::Error::other),
            end = self.exchange(state, ads.mode, client, request) => end,
        }
    }

    fn request(&self, ads: &Ads, connector: &dyn Connect) -> io::Result<http::Request<()>> {
        let path = match ads.mode {
            XdsMode::StateOfTheWorld => SOTW_PATH,
            XdsMode::Delta => DELTA_PATH,
        };
        let uri = format!("{}://{}{path}", connector.scheme(), connector.authority());
        let mut builder = http::Request::builder()
            .method("POST")
            .uri(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("lateen/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &ads.initial_metadata {
            builder = builder.header(&**name, &**value);
        }
        if let Some(file) = &self.options.token_file {
            let token = crate::files::read_text(file)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?;
            builder = builder.header("authorization", format!("Bearer {}", token.trim()));
        }
        builder.body(()).map_err(io::Error::other)
    }

    async fn exchange(
        &self,
        state: &mut State,
        mode: XdsMode,
        client: h2::client::SendRequest<Bytes>,
        request: http::Request<()>,
    ) -> io::Result<()> {
        let mut client = client.ready().await.map_err(io::Error::other)?;
        let (response, mut send) = client
            .send_request(request, false)
            .map_err(io::Error::other)?;
        self.set_status(|s| s.connected = true);
        let first = {
            let mut world = self.handle.world();
            let requests = state.connect(&mut world, self.now());
            self.publish(&mut world);
            requests
        };
        write(&mut send, first)?;
        // Servers may answer the head only together with the first message.
        let response = self
            .until(state, &mut send, response)
            .await?
            .map_err(io::Error::other)?;
        check_head(response.status(), response.headers())?;
        let mut body = response.into_body();
        let mut deframer = Deframer::default();
        loop {
            let data = match self.until(state, &mut send, body.data()).await? {
                Some(data) => data.map_err(io::Error::other)?,
                None => break,
            };
            body.flow_control()
                .release_capacity(data.len())
                .map_err(io::Error::other)?;
            deframer.push(&data);
            while let Some(message) = deframer.next().map_err(io::Error::other)? {
                let response = parse(mode, &message)?;
                let requests = self.receive(state, response);
                write(&mut send, requests)?;
            }
        }
        match body.trailers().await.map_err(io::Error::other)? {
            Some(trailers) => grpc_result(&trailers),
            None => Ok(()),
        }
    }

    /// Waits for something on the stream while timeouts go on.
    async fn until<T>(
        &self,
        state: &mut State,
        send: &mut h2::SendStream<Bytes>,
        wait: impl Future<Output = T>,
    ) -> io::Result<T> {
        tokio::pin!(wait);
        loop {
            self.reconcile_secrets();
            let deadline = self.deadline(state);
            tokio::select! {
                done = &mut wait => return Ok(done),
                () = self.changed.notified() => {}
                () = sleep_until(deadline) => {}
            }
            let requests = self.poll(state);
            write(send, requests)?;
        }
    }

    fn receive(&self, state: &mut State, response: Response) -> Vec<Request> {
        let mut world = self.handle.world();
        let requests = state.receive(response, &mut world, self.now());
        self.publish(&mut world);
        drop(world);
        for request in &requests {
            let (url, error) = match request {
                Request::Sotw(r) => (&r.type_url, &r.error_detail),
                Request::Delta(r) => (&r.type_url, &r.error_detail),
            };
            if let Some(error) = error {
                tracing::warn!(target: "config", type_url = %url, reason = %error.message, "xDS response refused");
            }
        }
        self.set_status(|s| {
            s.outcomes = state.outcomes;
            s.control_plane.clone_from(&state.control_plane);
        });
        requests
    }
}

/// Sleeps until then; for ever without a moment.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn write(send: &mut h2::SendStream<Bytes>, requests: Vec<Request>) -> io::Result<()> {
    for request in requests {
        let data = match &request {
            Request::Sotw(r) => frame(r),
            Request::Delta(r) => frame(r),
        };
        send.send_data(data, false).map_err(io::Error::other)?;
    }
    Ok(())
}

fn parse(mode: XdsMode, message: &[u8]) -> io::Result<Response> {
    let bad = |e| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("discovery response: {e}"),
        )
    };
    Ok(match mode {
        XdsMode::StateOfTheWorld => {
            Response::Sotw(pb::DiscoveryResponse::decode(message).map_err(bad)?)
        }
        XdsMode::Delta => {
            Response::Delta(pb::DeltaDiscoveryResponse::decode(message).map_err(bad)?)
        }
    })
}

pub(super) fn check_head(status: http::StatusCode, headers: &http::HeaderMap) -> io::Result<()> {
    if status != http::StatusCode::OK {
        return Err(io::Error::other(format!(
            "the management server answered HTTP {status}"
        )));
    }
    if headers.contains_key("grpc-status") {
        grpc_result(headers)
    } else {
        Ok(())
    }
}

pub(super) fn grpc_result(headers: &http::HeaderMap) -> io::Result<()> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
    };
    match text("grpc-status") {
        "" | "0" => Ok(()),
        code => Err(io::Error::other(format!(
            "gRPC status {code}: {}",
            text("grpc-message")
        ))),
    }
}
