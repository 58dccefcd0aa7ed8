//! The `grpc_stats` filter: results and messages of gRPC calls under their cluster, by method where
//! the configuration lists it. Names and meaning as Envoy's.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;
use lateen_proxy_core::access_log::Record as _;
use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::http_filter::GrpcStats;
use lateen_proxy_core::router::is_grpc;
use lateen_proxy_core::stats::{Counter, Registry, Scope};

use super::record::StreamRecord;
use crate::stats::rare::{GrpcEvent, Rare};

/// Most methods of one connection manager that are counted apart in one worker: clients choose the
/// names where every method is counted. Further ones are counted together.
const MOST_METHODS: usize = 1024;

/// The last status that gRPC knows.
const MOST_STATUS: u32 = 16;

/// Counts the messages of a body: each has five bytes in front, the last four its length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    /// Messages whose head was seen.
    pub count: u64,
    head: [u8; 5],
    have: u8,
    left: u32,
}

impl Frames {
    /// Looks at the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skip = bytes.len().min(self.left as usize);
                self.left -= skip as u32;
                bytes = &bytes[skip..];
                continue;
            }
            let have = usize::from(self.have);
            let take = bytes.len().min(5 - have);
            self.head[have..have + take].copy_from_slice(&bytes[..take]);
            self.have += take as u8;
            bytes = &bytes[take..];
            if self.have == 5 {
                let [_, a, b, c, d] = self.head;
                self.left = u32::from_be_bytes([a, b, c, d]);
                self.have = 0;
                self.count += 1;
            }
        }
    }
}

/// The counters of one method of one cluster.
#[derive(Debug)]
struct Method {
    registry: Registry,
    scope: Scope,
    events: Rare<GrpcEvent>,
    by_status: RefCell<Vec<(u32, Counter)>>,
}

impl Method {
    fn new(registry: &Registry, scope: Scope) -> Self {
        Self {
            events: Rare::hidden(registry, &scope),
            by_status: RefCell::default(),
            registry: registry.clone(),
            scope,
        }
    }

    fn ended(&self, status: u32) {
        self.events.inc(GrpcEvent::total);
        self.events.inc(match status {
            0 => GrpcEvent::success,
            _ => GrpcEvent::failure,
        });
        // A server invents others; they are failures, without a series of their own.
        if status > MOST_STATUS {
            return;
        }
        let mut all = self.by_status.borrow_mut();
        if let Some((_, counter)) = all.iter().find(|(s, _)| *s == status) {
            return counter.inc();
        }
        let counter = self.registry.counter(&self.scope.stat(&status.to_string()));
        counter.inc();
        all.push((status, counter));
    }
}

/// By cluster, and by path where a method is counted apart.
type Methods = HashMap<(Name, Box<[u8]>), Rc<Method>>;

/// The filter's counters in one worker.
#[derive(Debug)]
pub struct GrpcState {
    config: GrpcStats,
    methods: RefCell<Methods>,
}

/// The service and method of a path, `/package.Service/Method`.
fn names(path: &[u8]) -> Option<(&str, &str)> {
    let path = path.split(|b| *b == b'?').next()?;
    let text = std::str::from_utf8(path).ok()?.strip_prefix('/')?;
    let (service, method) = text.split_once('/')?;
    let fit = |s: &str| !s.is_empty() && !s.contains('/') && !s.contains(char::is_control);
    (fit(service) && fit(method)).then_some((service, method))
}

impl GrpcState {
    /// Of a filter that has counted nothing yet.
    pub fn new(config: GrpcStats) -> Self {
        Self {
            config,
            methods: RefCell::default(),
        }
    }

    /// Whether the messages of a request are to be counted.
    pub fn watches(&self, record: &StreamRecord) -> bool {
        is_grpc(&record.request)
    }

    fn apart(&self, service: &str, method: &str) -> bool {
        let listed = |(s, methods): &(Name, Vec<Name>)| {
            **s == *service && methods.iter().any(|m| **m == *method)
        };
        self.config.stats_for_all_methods || self.config.methods.iter().any(listed)
    }

    /// Counts a call that ended.
    pub fn finished(&self, record: &StreamRecord) {
        let Some(cluster) = record.cluster.as_ref().filter(|_| is_grpc(&record.request)) else {
            return;
        };
        let name = &cluster.config.stat_name;
        let path = record.asked.as_deref().unwrap_or(record.request.path());
        let named = names(path).filter(|(service, method)| self.apart(service, method));
        let mut methods = self.methods.borrow_mut();
        let mut key = (name.clone(), named.map_or(&b""[..], |_| path).into());
        if !methods.contains_key(&key) && methods.len() >= MOST_METHODS {
            key.1 = Box::default();
        }
        let named = named.filter(|_| !key.1.is_empty());
        let registry = &record.conn.worker.options.stats;
        let counters = methods.entry(key).or_insert_with(|| {
            let scope = Scope::cluster(name).sub("grpc");
            let scope =
                match named {
                    Some((service, method)) => scope
                        .tag("", "envoy.grpc_bridge_service", service)
                        .tag("", "envoy.grpc_bridge_method", method),
                    None => scope,
                };
            Rc::new(Method::new(registry, scope))
        });
        let (requests, responses) = record.messages;
        for (event, count) in [
            (GrpcEvent::request_message_count, requests),
            (GrpcEvent::response_message_count, responses),
        ] {
            if count > 0 {
                counters.events.add(event, count);
            }
        }
        if let Some(status) = record.grpc_status() {
            counters.ended(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut body = vec![0, 0, 0, 0, 3, 1, 2, 3];
        body.extend_from_slice(&[1, 0, 0, 0, 0]);
        body.extend_from_slice(&[0, 0, 0, 1, 0]);
        body.extend_from_slice(&[7; 256]);
        body.extend_from_slice(&[0, 0]);
        for step in 1..body.len() {
            let mut frames = Frames::default();
            body.chunks(step).for_each(|part| frames.feed(part));
            assert_eq!(frames.count, 3, "in steps of {step}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(names(b"/a.B/C?x"), Some(("a.B", "C")));
        for path in ["", "/", "/a", "/a/", "//b", "/a/b/c", "a/b", "/a/b\n"] {
            assert_eq!(names(path.as_bytes()), None, "{path}");
        }
    }
}
