//! Span exporters of one worker: finished spans wait in a bounded queue and go
//! to their collector in reports, from a task beside the requests.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::tracing::Provider;
use lateen_proxy_core::stats::{Counter, Registry, Scope};
use lateen_proxy_core::trace::{Reporter, Span, otlp, zipkin};

use crate::http::call::{Answer, Call};
use crate::http::head::Head;
use crate::io::Timer;
use crate::worker::Worker;

/// Most spans that wait; further ones are dropped and counted.
const MOST_WAITING: usize = 4096;
/// Most spans of one report.
const MOST_OF_REPORT: usize = 512;
/// How long a span may wait.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest time a report to Zipkin may take; Envoy's default.
const ZIPKIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The tracers of a worker, one for each provider in use.
#[derive(Debug, Default)]
pub struct Tracers(RefCell<Vec<Rc<Tracer>>>);

impl Tracers {
    /// The tracer of a provider; begins its reports with the first use.
    pub fn get(&self, worker: &Rc<Worker>, provider: &Arc<Provider>) -> Rc<Tracer> {
        let mut all = self.0.borrow_mut();
        let same =
            |t: &&Rc<Tracer>| Arc::ptr_eq(&t.provider, provider) || *t.provider == **provider;
        if let Some(tracer) = all.iter().find(same) {
            return tracer.clone();
        }
        // A tracer of a configuration that is gone has sent what it had.
        all.retain(|t| Rc::strong_count(t) > 1 || !t.waiting.borrow().is_empty());
        let tracer = Rc::new(Tracer::new(provider.clone(), &worker.options.stats));
        all.push(tracer.clone());
        tokio::task::spawn_local(report(Rc::downgrade(worker), Rc::downgrade(&tracer)));
        tracer
    }
}

/// Spans on their way to one collector.
#[derive(Debug)]
pub struct Tracer {
    /// Where they go.
    pub provider: Arc<Provider>,
    waiting: RefCell<Vec<Span>>,
    reporting: Cell<bool>,
    spans_sent: Counter,
    spans_dropped: Counter,
    reports_sent: Counter,
    reports_dropped: Counter,
    reports_failed: Counter,
    timer_flushed: Counter,
    no_cluster: Counter,
}

impl Tracer {
    fn new(provider: Arc<Provider>, stats: &Registry) -> Self {
        let scope = Scope::group(match &*provider {
            Provider::Zipkin(_) => "tracing.zipkin",
            Provider::OpenTelemetry(_) => "tracing.opentelemetry",
        });
        let counter = |name: &str| stats.counter(&scope.stat(name));
        Self {
            provider,
            waiting: RefCell::default(),
            reporting: Cell::new(false),
            spans_sent: counter("spans_sent"),
            spans_dropped: counter("spans_dropped"),
            reports_sent: counter("reports_sent"),
            reports_dropped: counter("reports_dropped"),
            reports_failed: counter("reports_failed"),
            timer_flushed: counter("timer_flushed"),
            no_cluster: counter("reports_skipped_no_cluster"),
        }
    }

    /// Queues a finished span.
    pub fn finished(&self, span: Span) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= MOST_WAITING {
            return self.spans_dropped.inc();
        }
        waiting.push(span);
    }

    /// A report's body of the spans that wait longest.
    fn take(&self, reporter: &Reporter) -> Option<(Vec<u8>, u64)> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return None;
        }
        let count = waiting.len().min(MOST_OF_REPORT);
        let spans: Vec<Span> = waiting.drain(..count).collect();
        let mut body = Vec::new();
        match &*self.provider {
            Provider::Zipkin(_) => zipkin::write(&spans, reporter, &mut body),
            Provider::OpenTelemetry(to) => {
                let version = env!("CARGO_PKG_VERSION");
                let resource = [
                    ("service.name", &*to.service_name),
                    ("telemetry.sdk.language", "rust"),
                    ("telemetry.sdk.name", "lateen"),
                    ("telemetry.sdk.version", version),
                ];
                if to.grpc {
                    // Not compressed, then the length (gRPC over HTTP/2).
                    body.extend_from_slice(&[0; 5]);
                }
                otlp::write(&spans, &resource, version, &mut body);
                if to.grpc {
                    let length = u32::try_from(body.len() - 5).unwrap_or(u32::MAX);
                    body[1..5].copy_from_slice(&length.to_be_bytes());
                }
            }
        }
        Some((body, count as u64))
    }

    /// The head of a report.
    fn head(&self, body: &[u8]) -> (Head, bool) {
        let mut head = Head::new();
        head.set_method(b"POST");
        head.set_scheme(b"http");
        let (path, host): (&Name, &Name) = match &*self.provider {
            Provider::Zipkin(to) => (&to.path, &to.host),
            Provider::OpenTelemetry(to) => (&to.path, &to.host),
        };
        head.set_path(path.as_bytes());
        head.set_authority(host.as_bytes());
        let mut h2 = false;
        match &*self.provider {
            Provider::Zipkin(_) => head.add(b"content-type", b"application/json"),
            Provider::OpenTelemetry(to) if to.grpc => {
                h2 = true;
                head.add(b"te", b"trailers");
                head.add(b"content-type", b"application/grpc");
            }
            Provider::OpenTelemetry(_) => head.add(b"content-type", b"application/x-protobuf"),
        }
        if let Provider::OpenTelemetry(to) = &*self.provider {
            for (name, value) in &to.headers {
                head.set(name.as_bytes(), value.as_bytes());
            }
        }
        if !h2 {
            head.add(b"content-length", body.len().to_string().as_bytes());
        }
        (head, h2)
    }

    /// Sends what waits.
    async fn flush(&self, worker: &Rc<Worker>) {
        if self.reporting.replace(true) {
            return;
        }
        let reporter = Reporter {
            service: worker.options.own.service.to_string(),
            ip: worker.node_ip,
        };
        while let Some((body, count)) = self.take(&reporter) {
            let Some(cluster) = worker.clusters.get(self.provider.cluster()) else {
                self.no_cluster.inc();
                self.spans_dropped.add(count);
                continue;
            };
            let limit = match &*self.provider {
                Provider::Zipkin(_) => ZIPKIN_TIMEOUT,
                Provider::OpenTelemetry(to) => to.timeout,
            };
            let (head, h2) = self.head(&body);
            let mut call = Call {
                head,
                body,
                tail: Vec::new(),
                timeout: limit,
                longest: None,
                repeatable: false,
            };
            let answer = call.send_to(&cluster, h2).await;
            match answer.as_ref().map(|answer| (answer, takes(answer, h2))) {
                Ok((_, true)) => {
                    self.reports_sent.inc();
                    self.spans_sent.add(count);
                }
                Ok((answer, false)) => {
                    let status = answer.head.status;
                    tracing::debug!(target: crate::logger::TRACING, status, cluster = %cluster.config.name, "spans were not taken");
                    self.reports_dropped.inc();
                    self.spans_dropped.add(count);
                }
                Err(error) => {
                    tracing::debug!(target: crate::logger::TRACING, %error, cluster = %cluster.config.name, "spans were not sent");
                    self.reports_failed.inc();
                    self.spans_dropped.add(count);
                }
            }
        }
        self.reporting.set(false);
    }
}

/// Whether a collector took a report: over gRPC its status says so, in the
/// trailers or, where it has no message, in the head.
fn takes(answer: &Answer, grpc: bool) -> bool {
    if !(200..300).contains(&answer.head.status) {
        return false;
    }
    let status = |head: &Head| head.first(b"grpc-status").map(|status| status == b"0");
    !grpc || status(&answer.trailers).or_else(|| status(&answer.head)) == Some(true)
}

/// Sends a tracer's spans as long as it and its worker live.
async fn report(worker: Weak<Worker>, tracer: Weak<Tracer>) {
    let pause = Timer::new();
    loop {
        pause.sleep(INTERVAL).await;
        let (Some(worker), Some(tracer)) = (worker.upgrade(), tracer.upgrade()) else {
            return;
        };
        if !tracer.waiting.borrow().is_empty() {
            tracer.timer_flushed.inc();
        }
        tracer.flush(&worker).await;
    }
}
