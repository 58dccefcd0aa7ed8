//! Keeps kernel rules and DNS zone in step with Services and EndpointSlices.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::nft;
use super::ports::Ports;
use super::ruleset::{self, Layout};
use super::view::{self, Key, View};
use crate::api::handle::{Api, WatchEvent, WatchKind, WatchStream};
use crate::api::resource::{ENDPOINT_SLICES, SERVICES};
use crate::api::{ApiError, Selectors};

/// How long changes are gathered before the rules are written.
const GATHER: Duration = Duration::from_millis(3);
/// Wait before the API is asked again after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// How often the rules are written again though nothing has changed.
const RESYNC: Duration = Duration::from_secs(30);

/// Follows the API and writes rules; shares the view with DNS.
#[derive(Debug)]
pub struct ServiceSync {
    view: Arc<ArcSwap<View>>,
    applied: watch::Sender<u64>,
}

impl Default for ServiceSync {
    fn default() -> Self {
        Self {
            view: Arc::new(ArcSwap::from_pointee(View::default())),
            applied: watch::Sender::new(0),
        }
    }
}

impl ServiceSync {
    /// The current view, always up to date (rules follow within milliseconds).
    pub fn view(&self) -> Arc<ArcSwap<View>> {
        Arc::clone(&self.view)
    }

    /// Counts rule sets written.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Follows the API until dropped.
    pub async fn run(self: Arc<Self>, api: Api, layout: Layout) {
        loop {
            if let Err(error) = self.follow(&api, &layout).await {
                tracing::warn!(%error, "watching services failed; trying again");
            }
            sleep(RETRY).await;
        }
    }

    async fn follow(&self, api: &Api, layout: &Layout) -> Result<(), ApiError> {
        let all = Selectors::all();
        let mut services = api.watch(&SERVICES, None, &all, 0).await?;
        let mut slices = api.watch(&ENDPOINT_SLICES, None, &all, 0).await?;
        let mut view = View::default();
        let initial = take_initial(&mut services).await?;
        initial
            .iter()
            .for_each(|event| change_service(&mut view, event));
        let initial = take_initial(&mut slices).await?;
        initial
            .iter()
            .for_each(|event| change_slice(&mut view, event));
        let mut written = String::new();
        let mut ports = Ports::default();
        ports.follow(&view);
        let mut due = Some(Instant::now());
        let mut again = tokio::time::interval_at(Instant::now() + RESYNC, RESYNC);
        loop {
            tokio::select! {
                // Somebody else may have taken them away: what is there is not looked at.
                _ = again.tick() => {
                    written.clear();
                    ports.follow(&view);
                    let retry = self.write(layout, &view, &mut written).await;
                    due = retry.then(|| Instant::now() + RETRY);
                    continue;
                }
                event = services.next_event() => match event {
                    Some(event) => change_service(&mut view, &event?),
                    None => return Ok(()),
                },
                event = slices.next_event() => match event {
                    Some(event) => change_slice(&mut view, &event?),
                    None => return Ok(()),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let retry = self.write(layout, &view, &mut written).await;
                    due = retry.then(|| Instant::now() + RETRY);
                    continue;
                }
            }
            ports.follow(&view);
            self.view.store(Arc::new(view.clone()));
            due.get_or_insert_with(|| Instant::now() + GATHER);
        }
    }

    /// Writes the rules when they differ from those written last; `true` asks for another try.
    async fn write(&self, layout: &Layout, view: &View, written: &mut String) -> bool {
        self.view.store(Arc::new(view.clone()));
        let text = ruleset::render(layout, view);
        if text == *written {
            return false;
        }
        match nft::apply(&text).await {
            Ok(()) => {
                *written = text;
                self.applied.send_modify(|count| *count += 1);
                false
            }
            Err(error) => {
                tracing::error!(%error, "service rules were not written");
                true
            }
        }
    }
}

/// Takes the objects a fresh watch begins with, up to its first bookmark.
pub(crate) async fn take_initial(stream: &mut WatchStream) -> Result<Vec<WatchEvent>, ApiError> {
    let mut events = Vec::new();
    while let Some(event) = stream.next_event().await {
        let event = event?;
        if event.kind == WatchKind::Bookmark {
            break;
        }
        events.push(event);
    }
    Ok(events)
}

fn key(object: &Value) -> Key {
    let field = |name: &str| {
        object["metadata"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (field("namespace"), field("name"))
}

fn change_service(view: &mut View, event: &WatchEvent) {
    match event.kind {
        WatchKind::Bookmark => {}
        WatchKind::Deleted => {
            view.services.remove(&key(&event.object));
        }
        WatchKind::Added | WatchKind::Modified => match Service::deserialize(&*event.object) {
            Ok(service) => {
                view.services
                    .insert(key(&event.object), view::read_service(&service));
            }
            Err(error) => tracing::warn!(%error, "a Service could not be read"),
        },
    }
}

fn change_slice(view: &mut View, event: &WatchEvent) {
    match event.kind {
        WatchKind::Bookmark => {}
        WatchKind::Deleted => {
            view.slices.remove(&key(&event.object));
        }
        WatchKind::Added | WatchKind::Modified => {
            match EndpointSlice::deserialize(&*event.object) {
                Ok(slice) => {
                    match view::read_slice(&slice) {
                        Some(read) => view.slices.insert(key(&event.object), read),
                        None => view.slices.remove(&key(&event.object)),
                    };
                }
                Err(error) => tracing::warn!(%error, "an EndpointSlice could not be read"),
            }
        }
    }
}
