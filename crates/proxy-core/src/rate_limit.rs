//! Which buckets a request takes tokens from: rules make descriptors of it, descriptors find
//! buckets, and every bucket that is found must have a token.
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use xxhash_rust::xxh64::Xxh64;

use crate::access_log::Template;
use crate::config::rate_limit::{
    Hits, LocalRateLimit, RateLimitAction, RateLimitRule, Read, Written,
};
use crate::config::{Name, Value};
use crate::lru::Lru;
use crate::matcher::{Headers, query_parameter};
use crate::path;
use crate::token_bucket::TokenBucket;

/// What rules look at.
pub struct Facts<'a, H: Headers + ?Sized> {
    /// The request.
    pub headers: &'a H,
    /// The client's address.
    pub remote: IpAddr,
    /// The node's cluster.
    pub source_cluster: &'a str,
    /// The cluster that the route leads to, if it leads to one.
    pub destination_cluster: Option<&'a str>,
    /// Dynamic metadata by namespace.
    pub metadata: &'a dyn Fn(&str) -> Option<&'a Value>,
    /// The route's metadata by namespace.
    pub route_metadata: &'a dyn Fn(&str) -> Option<&'a Value>,
    /// Writes a text with operators.
    pub write: &'a dyn Fn(&Template) -> Vec<u8>,
}

/// A descriptor of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    entries: SmallVec<[Entry<'a>; 4]>,
    /// Tokens that it takes.
    hits: u64,
}

type Entry<'a> = (&'a str, Cow<'a, [u8]>);

/// Makes descriptors of a request by the rules of a stage.
pub fn descriptors<'a, 'f: 'a, H: Headers + ?Sized>(
    rules: impl IntoIterator<Item = &'a RateLimitRule>,
    stage: u32,
    facts: &Facts<'f, H>,
) -> SmallVec<[Asked<'a>; 4]> {
    let rules = rules.into_iter().filter(|rule| rule.stage == stage);
    rules.filter_map(|rule| descriptor(rule, facts)).collect()
}

fn descriptor<'a, 'f: 'a, H: Headers + ?Sized>(
    rule: &'a RateLimitRule,
    facts: &Facts<'f, H>,
) -> Option<Asked<'a>> {
    let mut entries = SmallVec::new();
    for action in &rule.actions {
        match entry(action, facts) {
            Made::Entry(key, value) => entries.push((key, value)),
            Made::Skipped => {}
            Made::None => return None,
        }
    }
    let hits = match &rule.hits {
        Hits::Number(number) => *number,
        Hits::Format(format) => {
            let text = (facts.write)(format);
            let number = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
            number.unwrap_or(1)
        }
    };
    (!entries.is_empty()).then_some(Asked { entries, hits })
}

/// What an action made.
enum Made<'a> {
    Entry(&'a str, Cow<'a, [u8]>),
    /// Nothing, and the others hold.
    Skipped,
    /// Nothing: there is no descriptor.
    None,
}

fn entry<'a, 'f: 'a, H: Headers + ?Sized>(
    action: &'a RateLimitAction,
    facts: &Facts<'f, H>,
) -> Made<'a> {
    use RateLimitAction as A;
    let query = || path::query(facts.headers.first(":path")?);
    let text = |key: &'static str, text: String| Made::Entry(key, Cow::Owned(text.into_bytes()));
    match action {
        A::SourceCluster => Made::Entry(
            "source_cluster",
            Cow::Borrowed(facts.source_cluster.as_bytes()),
        ),
        A::DestinationCluster => match facts.destination_cluster {
            Some(name) => Made::Entry("destination_cluster", Cow::Borrowed(name.as_bytes())),
            None => Made::None,
        },
        A::RequestHeader(read) => {
            let value = facts.headers.first(&read.name);
            found(read, value.map(Cow::Borrowed))
        }
        A::QueryParameter(read) => {
            let value = query().and_then(|q| query_parameter(q, read.name.as_bytes()));
            found(read, value.map(path::percent_decoded))
        }
        A::RemoteAddress => text("remote_address", facts.remote.to_string()),
        A::MaskedRemoteAddress { v4, v6 } => {
            let len = if facts.remote.is_ipv4() { *v4 } else { *v6 };
            match ipnet::IpNet::new(facts.remote, len) {
                Ok(net) => text("masked_remote_address", net.trunc().to_string()),
                Err(_) => Made::None,
            }
        }
        A::GenericKey(written) => write(true, written),
        A::HeaderMatch(written, headers, expected) => {
            let all = headers.iter().all(|m| m.matches(facts.headers));
            write(all == *expected, written)
        }
        A::QueryMatch(written, parameters, expected) => {
            let query = query();
            let all = parameters.iter().all(|m| m.matches(query));
            write(all == *expected, written)
        }
        A::AddressMatch(written, ranges, inverted) => {
            let any = ranges.iter().any(|range| range.contains(facts.remote));
            write(any != *inverted, written)
        }
        A::Metadata(entry) => {
            let namespace = match entry.of_route {
                true => (facts.route_metadata)(&entry.namespace),
                false => (facts.metadata)(&entry.namespace),
            };
            let value = namespace.and_then(|v| v.path(&entry.path)?.as_str());
            let value = value.filter(|v| !v.is_empty()).unwrap_or(&entry.default);
            match (value.is_empty(), entry.skip_if_absent) {
                (false, _) => Made::Entry(&entry.key, Cow::Borrowed(value.as_bytes())),
                (true, true) => Made::Skipped,
                (true, false) => Made::None,
            }
        }
    }
}

fn found<'a>(read: &'a Read, value: Option<Cow<'a, [u8]>>) -> Made<'a> {
    match value {
        Some(value) => Made::Entry(&read.key, value),
        None if read.skip_if_absent => Made::Skipped,
        None => Made::None,
    }
}

fn write(holds: bool, written: &Written) -> Made<'_> {
    match holds {
        true => Made::Entry(&written.key, Cow::Borrowed(written.value.as_bytes())),
        false => Made::None,
    }
}

/// How a bucket fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// Tokens that it holds.
    pub most: u32,
    /// Tokens of one fill.
    pub per_fill: u32,
    /// Time between fills.
    pub interval: Duration,
}

impl Filling {
    /// A bucket that fills so, full.
    #[must_use]
    pub fn bucket(&self) -> Arc<TokenBucket> {
        Arc::new(TokenBucket::new(self.most, self.per_fill, self.interval))
    }
}

/// A configured descriptor: an entry with an empty value is for all values, each with a bucket of
/// its own.
#[derive(Debug)]
struct Limited {
    entries: Vec<(Name, Name)>,
    filling: Filling,
    bucket: Bucket,
    /// It refuses nothing.
    shadow: bool,
}

#[derive(Debug)]
enum Bucket {
    One(Arc<TokenBucket>),
    /// By the values of the request's entries; those not used for longest go first.
    Each(Mutex<Lru<Arc<TokenBucket>>>),
}

/// The configured descriptors.
#[derive(Debug, Default)]
pub struct Descriptors {
    all: Vec<Limited>,
    /// Those without an empty value, by the hash of their entries, sorted.
    exact: Vec<(u64, usize)>,
    /// The others.
    open: Vec<usize>,
}

impl Descriptors {
    /// Adds a descriptor; false when it is there already. `most_values` bounds the buckets of one
    /// that is for all values.
    pub fn add(
        &mut self,
        entries: Vec<(Name, Name)>,
        filling: Filling,
        shadow: bool,
        most_values: u32,
    ) -> bool {
        if self.all.iter().any(|limited| limited.entries == entries) {
            return false;
        }
        let open = entries.iter().any(|(_, value)| value.is_empty());
        let place = self.all.len();
        let bucket = match open {
            true => {
                self.open.push(place);
                Bucket::Each(Mutex::new(Lru::new(most_values as usize)))
            }
            false => {
                let parts = entries.iter().map(|(k, v)| (&**k, v.as_bytes()));
                let key = (hash(parts), place);
                let at = self.exact.partition_point(|other| *other < key);
                self.exact.insert(at, key);
                Bucket::One(filling.bucket())
            }
        };
        self.all.push(Limited {
            entries,
            filling,
            bucket,
            shadow,
        });
        true
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The bucket of a request's descriptor, and whether it only counts.
    fn find(&self, asked: &Asked<'_>) -> Option<(Arc<TokenBucket>, bool)> {
        let key = hash(asked.entries.iter().map(|(k, v)| (*k, &**v)));
        let first = self.exact.partition_point(|(hash, _)| *hash < key);
        let same = self.exact[first..].iter().take_while(|(h, _)| *h == key);
        let mut places = same
            .map(|(_, place)| *place)
            .chain(self.open.iter().copied());
        let limited = places.find_map(|place| {
            let limited = &self.all[place];
            limited.covers(asked).then_some(limited)
        })?;
        let bucket = match &limited.bucket {
            Bucket::One(bucket) => bucket.clone(),
            Bucket::Each(buckets) => {
                let key = joined(asked);
                // A thread that panicked left whole buckets: each is one number.
                let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
                buckets
                    .get_or_insert(&key, || limited.filling.bucket())
                    .clone()
            }
        };
        Some((bucket, limited.shadow))
    }
}

impl Limited {
    fn covers(&self, asked: &Asked<'_>) -> bool {
        self.entries.len() == asked.entries.len()
            && self.entries.iter().zip(&asked.entries).all(|(want, have)| {
                *want.0 == *have.0 && (want.1.is_empty() || want.1.as_bytes() == &*have.1)
            })
    }
}

fn hash<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> u64 {
    let mut hasher = Xxh64::new(0);
    for (key, value) in entries {
        hasher.update(key.as_bytes());
        hasher.update(&[0]);
        hasher.update(value);
        hasher.update(&[0]);
    }
    hasher.digest()
}

/// The values of a descriptor as one text; each begins with its length.
fn joined(asked: &Asked<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    for (_, value) in &asked.entries {
        key.extend_from_slice(&value.len().to_le_bytes());
        key.extend_from_slice(value);
    }
    key
}

/// What became of a request.
#[derive(Debug)]
pub struct Taken {
    /// It had all tokens it needed.
    pub allowed: bool,
    /// The bucket that it tells of; none = it was not limited.
    pub bucket: Option<Arc<TokenBucket>>,
}

impl LocalRateLimit {
    /// Takes the tokens of a request at `now`, nanoseconds: from the buckets of its descriptors,
    /// the slowest first, then from the default one.
    #[must_use]
    pub fn take(&self, asked: &[Asked<'_>], now: u64) -> Taken {
        let mut found: SmallVec<[_; 4]> = SmallVec::new();
        for asked in asked {
            let bucket = self.descriptors.find(asked);
            found.extend(bucket.map(|(bucket, shadow)| (bucket, shadow, asked.hits)));
        }
        found.sort_by_key(|(bucket, ..)| std::cmp::Reverse(bucket.step()));
        for (bucket, shadow, hits) in &found {
            if !bucket.take_many(*hits, now) && !shadow {
                return Taken {
                    allowed: false,
                    bucket: Some(bucket.clone()),
                };
            }
        }
        let first = found.first().map(|(bucket, ..)| bucket.clone());
        if let Some(default) = &self.bucket
            && (first.is_none() || self.always_consume_default)
            && !default.take(now)
        {
            return Taken {
                allowed: false,
                bucket: Some(default.clone()),
            };
        }
        Taken {
            allowed: true,
            bucket: first.or_else(|| self.bucket.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
