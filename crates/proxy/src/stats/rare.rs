//! Statistics of what seldom happens: shown with zero from the start, as Envoy shows them, and a
//! cell from the first time on. What never happens costs no memory.

use std::cell::RefCell;

use lateen_proxy_core::stats::{Counter, Gauge, Histogram, Registry, Scope, Shown};

/// A closed set of statistics of one scope.
pub trait Event: Copy + Eq + 'static {
    /// All of them, in the order of their numbers.
    const SHOWN: &'static [Shown];

    /// The place in [`Event::SHOWN`].
    fn number(self) -> usize;
}

#[derive(Debug)]
enum Cell {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// The statistics of a set under one scope.
#[derive(Debug)]
pub struct Rare<T> {
    registry: Registry,
    scope: Scope,
    made: RefCell<Vec<(T, Cell)>>,
}

impl<T: Event> Rare<T> {
    /// Shows the set under a scope.
    pub fn new(registry: &Registry, scope: &Scope) -> Self {
        registry.show(scope, T::SHOWN);
        Self::hidden(registry, scope)
    }

    /// A set of which nothing is shown before it happened.
    pub fn hidden(registry: &Registry, scope: &Scope) -> Self {
        Self {
            registry: registry.clone(),
            scope: scope.clone(),
            made: RefCell::default(),
        }
    }

    fn with(&self, event: T, make: impl FnOnce(&Self, &str) -> Cell, act: impl FnOnce(&Cell)) {
        let mut made = self.made.borrow_mut();
        if let Some((_, cell)) = made.iter().find(|(e, _)| *e == event) {
            return act(cell);
        }
        let cell = make(self, T::SHOWN[event.number()].0);
        act(&cell);
        made.push((event, cell));
    }

    /// Adds to a counter.
    pub fn add(&self, event: T, count: u64) {
        let make =
            |all: &Self, name: &str| Cell::Counter(all.registry.counter(&all.scope.stat(name)));
        self.with(event, make, |cell| {
            if let Cell::Counter(counter) = cell {
                counter.add(count);
            }
        });
    }

    /// Adds one to a counter.
    pub fn inc(&self, event: T) {
        self.add(event, 1);
    }

    /// Adds to a gauge.
    pub fn raise(&self, event: T, by: i64) {
        let make = |all: &Self, name: &str| Cell::Gauge(all.registry.gauge(&all.scope.stat(name)));
        self.with(event, make, |cell| {
            if let Cell::Gauge(gauge) = cell {
                gauge.add(by);
            }
        });
    }

    /// Sets a gauge.
    pub fn set(&self, event: T, to: i64) {
        let make = |all: &Self, name: &str| Cell::Gauge(all.registry.gauge(&all.scope.stat(name)));
        self.with(event, make, |cell| {
            if let Cell::Gauge(gauge) = cell {
                gauge.set(to);
            }
        });
    }

    /// Adds a value to a histogram.
    pub fn record(&self, event: T, value: u64) {
        let make =
            |all: &Self, name: &str| Cell::Histogram(all.registry.histogram(&all.scope.stat(name)));
        self.with(event, make, |cell| {
            if let Cell::Histogram(histogram) = cell {
                histogram.record(value);
            }
        });
    }
}

/// Makes a set: kinds and names as Envoy has them; a name with dots stands behind `=`.
macro_rules! events {
    ($(#[$doc:meta])* $name:ident { $($kind:ident $event:ident $(= $text:literal)?),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(
            missing_docs,
            non_camel_case_types,
            reason = "each is Envoy's statistic of the same name"
        )]
        pub enum $name { $($event,)* }

        impl $crate::stats::rare::Event for $name {
            const SHOWN: &'static [lateen_proxy_core::stats::Shown] = &[
                $((
                    $crate::stats::rare::events!(@name $event $($text)?),
                    lateen_proxy_core::stats::SeriesKind::$kind,
                ),)*
            ];

            fn number(self) -> usize {
                self as usize
            }
        }
    };
    (@name $event:ident) => { stringify!($event) };
    (@name $event:ident $text:literal) => { $text };
}
pub(crate) use events;

events! {
    /// What seldom happens to a cluster.
    ClusterEvent {
        Counter upstream_cx_destroy_local,
        Counter upstream_cx_destroy_local_with_active_rq,
        Counter upstream_cx_destroy_remote,
        Counter upstream_cx_destroy_remote_with_active_rq,
        Counter upstream_cx_destroy_with_active_rq,
        Counter upstream_cx_idle_timeout,
        Counter upstream_cx_max_requests,
        Counter upstream_rq_max_duration_reached,
        Counter update_attempt,
        Counter update_failure,
        Counter update_no_rebuild,
        Counter upstream_internal_redirect_failed_total,
        Counter upstream_internal_redirect_succeeded_total,
        Gauge max_host_weight,
        Histogram upstream_cx_length_ms,
        Histogram upstream_rq_per_cx,
    }
}

events! {
    /// What seldom happens to a listener.
    ListenerEvent {
        Gauge downstream_pre_cx_active,
        Histogram downstream_cx_length_ms,
        Counter downstream_cx_overload_reject,
    }
}

events! {
    /// What seldom happens to a connection manager.
    HttpEvent {
        Counter downstream_cx_destroy_active_rq,
        Counter downstream_cx_destroy_local,
        Counter downstream_cx_destroy_remote,
        Counter downstream_cx_destroy_remote_active_rq,
        Counter downstream_cx_drain_close,
        Gauge downstream_cx_http1_active,
        Gauge downstream_cx_http2_active,
        Counter downstream_cx_idle_timeout,
        Histogram downstream_cx_length_ms,
        Counter downstream_cx_max_duration_reached,
        Counter downstream_cx_max_requests_reached,
        Counter downstream_cx_overload_disable_keepalive,
        Counter downstream_cx_protocol_error,
        Gauge downstream_cx_ssl_active,
        Counter downstream_cx_ssl_total,
        Gauge downstream_cx_upgrades_active,
        Counter downstream_rq_failed_path_normalization,
        Counter downstream_rq_header_timeout,
        Counter downstream_rq_max_duration_reached,
        Counter downstream_rq_non_relative_path,
        Counter downstream_rq_overload_close,
        Counter downstream_rq_redirected_with_normalized_path,
        Counter downstream_rq_response_before_rq_complete,
        Counter downstream_rq_too_large,
        Counter downstream_rq_ws_on_non_ws_route,
        Counter passthrough_internal_redirect_bad_location,
        Counter passthrough_internal_redirect_no_route,
        Counter passthrough_internal_redirect_predicate,
        Counter passthrough_internal_redirect_too_many_redirects,
        Counter passthrough_internal_redirect_unsafe_scheme,
    }
}

events! {
    /// Why a request is traced or not.
    TracingEvent {
        Counter client_enabled = "tracing.client_enabled",
        Counter not_traceable = "tracing.not_traceable",
        Counter random_sampling = "tracing.random_sampling",
        Counter service_forced = "tracing.service_forced",
    }
}

events! {
    /// What the CORS filter sees.
    CorsEvent {
        Counter origin_invalid = "cors.origin_invalid",
        Counter origin_valid = "cors.origin_valid",
    }
}

events! {
    /// What the fault filter does.
    FaultEvent {
        Counter aborts_injected = "fault.aborts_injected",
        Gauge active_faults = "fault.active_faults",
        Counter delays_injected = "fault.delays_injected",
    }
}

events! {
    /// What is counted of gRPC calls.
    GrpcEvent {
        Counter success,
        Counter failure,
        Counter total,
        Counter request_message_count,
        Counter response_message_count,
    }
}

events! {
    /// What the TLS inspector learns.
    HelloEvent {
        Counter alpn_found = "tls_inspector.alpn_found",
        Counter alpn_not_found = "tls_inspector.alpn_not_found",
        Counter sni_found = "tls_inspector.sni_found",
        Counter sni_not_found = "tls_inspector.sni_not_found",
        Counter tls_found = "tls_inspector.tls_found",
        Counter tls_not_found = "tls_inspector.tls_not_found",
    }
}
