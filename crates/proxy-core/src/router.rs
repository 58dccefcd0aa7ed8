//! Route choice: virtual host by host, route by path, headers and query; first match wins.
use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::config::Value;
use crate::config::route::{PathMatch, Route, RouteConfiguration, RouteMatch, VirtualHost};
use crate::known::Known;
use crate::matcher::Headers;
use crate::path;

/// What the choice of a route looks at.
#[derive(Clone, Copy)]
pub struct Request<'a, H: Headers + ?Sized> {
    /// `:path`, with query, normalised as the listener says.
    pub path: &'a [u8],
    /// `:authority`, any letter case, already stripped of its port where the listener says so.
    pub authority: &'a [u8],
    /// All headers.
    pub headers: &'a H,
    /// A CONNECT request (not an upgrade).
    pub connect: bool,
    /// A random number for shares; one per request, so that a decision holds.
    pub random: u64,
    /// A client certificate was presented, validated.
    pub client_certificate: (bool, bool),
    /// Dynamic metadata by namespace.
    pub metadata: &'a dyn Fn(&str) -> Option<&'a Value>,
}

/// A chosen route.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'a> {
    /// Virtual host.
    pub virtual_host: &'a Arc<VirtualHost>,
    /// Route.
    pub route: &'a Arc<Route>,
}

impl RouteConfiguration {
    /// The virtual host of a host.
    #[must_use]
    pub fn virtual_host(&self, authority: &[u8]) -> Option<&Arc<VirtualHost>> {
        let host = if self.ignore_port_in_host_matching {
            path::without_port(authority)
        } else {
            authority
        };
        self.index
            .find(&self.virtual_hosts, host)
            .map(|i| &self.virtual_hosts[i])
    }

    /// The virtual host and route of a request. `None` = 404 with flag NR.
    #[must_use]
    pub fn select<H: Headers + ?Sized>(&self, request: &Request<'_, H>) -> Option<Selected<'_>> {
        let virtual_host = self.virtual_host(request.authority)?;
        let route = virtual_host.select(request, self.ignore_path_parameters_in_path_matching)?;
        Some(Selected {
            virtual_host,
            route,
        })
    }
}

impl VirtualHost {
    /// The first route of this host that matches.
    #[must_use]
    pub fn select<H: Headers + ?Sized>(
        &self,
        request: &Request<'_, H>,
        ignore_path_parameters: bool,
    ) -> Option<&Arc<Route>> {
        let (bare, query) = path::parts(request.path);
        let seen = &*path::without_parameters_if(ignore_path_parameters, bare);
        self.index
            .find(&self.routes, seen, |m| m.matches(request, seen, query))
    }
}

impl RouteMatch {
    /// Whether a request matches; `path` is without query.
    #[must_use]
    pub fn matches<H: Headers + ?Sized>(
        &self,
        request: &Request<'_, H>,
        path: &[u8],
        query: Option<&[u8]>,
    ) -> bool {
        self.path_matches(path, request.connect)
            && self.headers.iter().all(|h| h.matches(request.headers))
            && self.query.iter().all(|q| q.matches(query))
            && (!self.grpc || is_grpc(request.headers))
            && self.fraction.is_none_or(|f| f.hit(request.random))
            && self
                .tls_presented
                .is_none_or(|want| want == request.client_certificate.0)
            && self
                .tls_validated
                .is_none_or(|want| want == request.client_certificate.1)
            && self
                .dynamic_metadata
                .iter()
                .all(|m| m.matches((request.metadata)(&m.filter)))
            && self.cookies.iter().all(|c| c.matches(request.headers))
    }

    fn path_matches(&self, path: &[u8], connect: bool) -> bool {
        let same = |a: &[u8], b: &[u8]| {
            if self.case_sensitive {
                a == b
            } else {
                a.eq_ignore_ascii_case(b)
            }
        };
        if connect {
            // A CONNECT request has no path: no ordinary route may take it.
            return matches!(self.path, PathMatch::Connect);
        }
        match &self.path {
            PathMatch::Prefix(want) => path
                .get(..want.len())
                .is_some_and(|p| same(p, want.as_bytes())),
            PathMatch::Exact(want) => same(path, want.as_bytes()),
            PathMatch::SeparatedPrefix(want) => {
                path.get(..want.len())
                    .is_some_and(|p| same(p, want.as_bytes()))
                    && path.get(want.len()).is_none_or(|b| *b == b'/')
            }
            PathMatch::Regex(re) => re.is_full_match(path),
            PathMatch::Template(t) => t.matches(path),
            PathMatch::Connect => false,
        }
    }
}

/// Whether a request is gRPC: content-type `application/grpc` or `application/grpc+...`.
#[must_use]
pub fn is_grpc<H: Headers + ?Sized>(headers: &H) -> bool {
    headers
        .known(Known::ContentType)
        .is_some_and(is_grpc_content_type)
}

/// Whether a content-type is gRPC's.
#[must_use]
pub fn is_grpc_content_type(value: &[u8]) -> bool {
    value
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'+')
}

/// Values by the bytes of a host or path.
type Table<T> = HashMap<Box<[u8]>, T>;

/// Choice of the virtual host: exact, then longest `*` suffix, then longest prefix, then `*`.
#[derive(Clone, Debug, Default)]
pub struct VirtualHostIndex {
    /// Virtual host and the place of the domain in it: the text stands there, not here.
    exact: HashTable<(u32, u32)>,
    hasher: DefaultHashBuilder,
    /// By length, longest first.
    suffixes: Vec<(usize, Table<u32>)>,
    prefixes: Vec<(usize, Table<u32>)>,
    any: Option<u32>,
}

/// Two virtual hosts claim the same domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateDomain(pub String);

impl VirtualHostIndex {
    /// Compiles the choice.
    ///
    /// # Errors
    /// When a domain stands twice, or `*` does.
    pub fn new(hosts: &[Arc<VirtualHost>]) -> Result<Self, DuplicateDomain> {
        let mut index = Self::default();
        let (mut suffixes, mut prefixes) = (HashMap::new(), HashMap::new());
        for (i, host) in (0_u32..).zip(hosts) {
            for (place, domain) in (0_u32..).zip(&host.domains) {
                let lower = domain.to_ascii_lowercase();
                let old = if lower == "*" {
                    index.any.replace(i)
                } else if let Some(suffix) = lower.strip_prefix('*') {
                    insert(&mut suffixes, suffix, i)
                } else if let Some(prefix) = lower.strip_suffix('*') {
                    insert(&mut prefixes, prefix, i)
                } else {
                    index.insert_exact(hosts, (i, place))
                };
                if old.is_some() {
                    return Err(DuplicateDomain(domain.to_string()));
                }
            }
        }
        index.suffixes = longest_first(suffixes);
        index.prefixes = longest_first(prefixes);
        let Self { exact, hasher, .. } = &mut index;
        exact.shrink_to_fit(|at| hasher.hash_one(text(hosts, *at)));
        Ok(index)
    }

    /// Adds an exact domain; the virtual host that claims it already, if any.
    fn insert_exact(&mut self, hosts: &[Arc<VirtualHost>], new: (u32, u32)) -> Option<u32> {
        use hashbrown::hash_table::Entry;
        let Self { exact, hasher, .. } = self;
        let hash = |at: &(u32, u32)| hasher.hash_one(text(hosts, *at));
        let same = |at: &(u32, u32)| text(hosts, *at) == text(hosts, new);
        match exact.entry(hash(&new), same, hash) {
            Entry::Occupied(old) => Some(old.get().0),
            Entry::Vacant(free) => {
                free.insert(new);
                None
            }
        }
    }

    /// The index of the virtual host of a host, among those that the index was made of.
    #[must_use]
    pub fn find(&self, hosts: &[Arc<VirtualHost>], host: &[u8]) -> Option<usize> {
        let lower;
        // Without a stop at the first one, so that many bytes are looked at together.
        let upper = |found: bool, b: &u8| found | b.is_ascii_uppercase();
        let host = if host.iter().fold(false, upper) {
            lower = host.to_ascii_lowercase();
            &lower[..]
        } else {
            host
        };
        let tail = |len: usize| {
            host.len()
                .checked_sub(len)
                .filter(|at| *at > 0)
                .map(|at| &host[at..])
        };
        let head = |len: usize| {
            if host.len() > len {
                host.get(..len)
            } else {
                None
            }
        };
        let exact = self.hasher.hash_one(host);
        self.exact
            .find(exact, |at| text(hosts, *at) == host)
            .map(|(i, _)| i)
            .or_else(|| {
                self.suffixes
                    .iter()
                    .find_map(|(len, map)| map.get(tail(*len)?))
            })
            .or_else(|| {
                self.prefixes
                    .iter()
                    .find_map(|(len, map)| map.get(head(*len)?))
            })
            .or(self.any.as_ref())
            .map(|i| *i as usize)
    }
}

/// A domain's text, lower-case; empty for a place that is none.
fn text(hosts: &[Arc<VirtualHost>], (host, place): (u32, u32)) -> &[u8] {
    let host = hosts.get(host as usize);
    let domain = host.and_then(|host| host.domains.get(place as usize));
    domain.map_or(&[], |domain| domain.as_bytes())
}

type ByLength = HashMap<usize, Table<u32>>;

fn insert(by_length: &mut ByLength, text: &str, i: u32) -> Option<u32> {
    by_length
        .entry(text.len())
        .or_default()
        .insert(text.as_bytes().into(), i)
}

fn longest_first(by_length: ByLength) -> Vec<(usize, Table<u32>)> {
    let mut list: Vec<_> = by_length.into_iter().collect();
    list.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
    list
}

/// Below this number of routes a plain walk is faster than the index.
const WALK: usize = 8;

/// Choice of the route within a virtual host. Large tables are indexed by path, so that only routes
/// whose path can match are looked at; the lowest index that matches wins, as in a plain walk.
#[derive(Clone, Debug, Default)]
pub struct RouteIndex(Option<Box<ByPath>>);

#[derive(Clone, Debug, Default)]
struct ByPath {
    exact: Table<Vec<u32>>,
    /// Prefixes and separated prefixes, by length.
    prefixes: Vec<(usize, Table<Vec<u32>>)>,
    /// Routes that must be looked at for every path.
    others: Vec<u32>,
}

impl RouteIndex {
    /// Compiles the choice.
    #[must_use]
    pub fn new(routes: &[Arc<Route>]) -> Self {
        if routes.len() <= WALK {
            return Self(None);
        }
        let mut index = ByPath::default();
        let mut prefixes: HashMap<usize, Table<Vec<u32>>> = HashMap::new();
        for (i, route) in (0_u32..).zip(routes) {
            let m = &route.matching;
            match &m.path {
                PathMatch::Exact(p) if m.case_sensitive => {
                    index.exact.entry(p.as_bytes().into()).or_default().push(i);
                }
                PathMatch::Prefix(p) | PathMatch::SeparatedPrefix(p)
                    if m.case_sensitive && &**p != "/" =>
                {
                    prefixes
                        .entry(p.len())
                        .or_default()
                        .entry(p.as_bytes().into())
                        .or_default()
                        .push(i);
                }
                _ => index.others.push(i),
            }
        }
        index.prefixes = prefixes.into_iter().collect();
        index.prefixes.sort_by_key(|(len, _)| *len);
        Self(Some(Box::new(index)))
    }

    /// The first route whose match says yes.
    fn find<'a>(
        &self,
        routes: &'a [Arc<Route>],
        path: &[u8],
        yes: impl Fn(&RouteMatch) -> bool,
    ) -> Option<&'a Arc<Route>> {
        let Some(index) = &self.0 else {
            return routes.iter().find(|r| yes(&r.matching));
        };
        let mut best = u32::MAX;
        let mut look = |list: &[u32]| {
            for i in list.iter().take_while(|i| **i < best) {
                if yes(&routes[*i as usize].matching) {
                    best = *i;
                    break;
                }
            }
        };
        if let Some(list) = index.exact.get(path) {
            look(list);
        }
        for (len, map) in index
            .prefixes
            .iter()
            .take_while(|(len, _)| *len <= path.len())
        {
            if let Some(list) = map.get(&path[..*len]) {
                look(list);
            }
        }
        look(&index.others);
        routes.get(best as usize)
    }
}

#[cfg(test)]
mod tests;
