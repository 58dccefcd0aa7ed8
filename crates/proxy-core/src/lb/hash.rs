//! Consistent hashing: Ketama ring and Maglev table, with Envoy's keys and hashes, so that the same
//! request goes to the same host as under Envoy.
use xxhash_rust::xxh64::xxh64;

use super::HostSpec;
use crate::config::cluster::LbPolicy;

/// The table of a set of hosts.
#[derive(Clone, Debug)]
pub(super) enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

impl Table {
    /// The table of the policy over (index, share), shares summing to 1; none
    /// for policies that do not hash.
    pub(super) fn new(
        policy: &LbPolicy,
        all: &[HostSpec],
        shares: &[(usize, f64)],
    ) -> Option<Self> {
        let keys = || {
            shares
                .iter()
                .map(|(i, share)| (*i, &all[*i].hash_key[..], *share))
        };
        match policy {
            LbPolicy::RingHash {
                minimum_ring_size,
                maximum_ring_size,
                murmur,
            } => Some(Self::Ring(Ring::new(
                keys(),
                *minimum_ring_size,
                *maximum_ring_size,
                *murmur,
            ))),
            LbPolicy::Maglev { table_size } => Some(Self::Maglev(Maglev::new(keys(), *table_size))),
            _ => None,
        }
    }

    /// The host of a hash; later attempts look elsewhere, as under Envoy.
    pub(super) fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        match self {
            Self::Ring(ring) => ring.choose(hash, attempt),
            Self::Maglev(maglev) => maglev.choose(hash, attempt),
        }
    }
}

/// A ring of points; a request goes to the first point at or after its hash.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// A ring over (index, key, weight). The order counts: it says who gets the
    /// points that rounding leaves over.
    pub fn new<'a>(
        hosts: impl Iterator<Item = (usize, &'a str, f64)> + Clone,
        least: u64,
        most: u64,
        murmur: bool,
    ) -> Self {
        let total: f64 = hosts.clone().map(|(_, _, w)| w).sum();
        let lightest = hosts
            .clone()
            .map(|(_, _, w)| w / total)
            .fold(f64::INFINITY, f64::min);
        if total <= 0.0 {
            return Self::default();
        }
        let scale = ((lightest * least as f64).ceil() / lightest).min(most as f64);
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        let (mut made, mut target) = (0.0, 0.0);
        let mut key_text = String::new();
        for (index, key, weight) in hosts {
            target += scale * weight / total;
            let mut i = 0_u64;
            while made < target {
                key_text.clear();
                key_text.push_str(key);
                key_text.push('_');
                key_text.push_str(itoa::Buffer::new().format(i));
                let hash = if murmur {
                    murmur2_64a(key_text.as_bytes(), 0xc70f_6907)
                } else {
                    xxh64(key_text.as_bytes(), 0)
                };
                points.push((hash, u32::try_from(index).unwrap_or(u32::MAX)));
                i += 1;
                made += 1.0;
            }
        }
        points.sort_by_key(|(hash, _)| *hash);
        Self { points }
    }

    /// The host of a hash; each further attempt goes one point on.
    #[must_use]
    pub fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        if self.points.is_empty() {
            return None;
        }
        let at = self.points.partition_point(|(point, _)| *point < hash) % self.points.len();
        let (_, host) = self.points[(at + attempt as usize) % self.points.len()];
        Some(host as usize)
    }

    /// Number of points.
    #[must_use]
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there is no point.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

/// Maglev's look-up table.
#[derive(Clone, Debug, Default)]
pub struct Maglev {
    table: Vec<u32>,
}

impl Maglev {
    /// A table of a prime size over (index, key, weight); filled in the order of
    /// the keys, so that every proxy makes the same one.
    pub fn new<'a>(hosts: impl Iterator<Item = (usize, &'a str, f64)> + Clone, size: u64) -> Self {
        struct Entry {
            host: u32,
            offset: u64,
            skip: u64,
            weight: f64,
            target: f64,
            next: u64,
        }
        let total: f64 = hosts.clone().map(|(_, _, w)| w).sum();
        let mut hosts: Vec<_> = hosts.collect();
        hosts.sort_by(|a, b| a.1.cmp(b.1));
        let mut entries: Vec<Entry> = hosts
            .into_iter()
            .map(|(index, key, weight)| Entry {
                host: u32::try_from(index).unwrap_or(u32::MAX),
                offset: xxh64(key.as_bytes(), 0) % size,
                skip: xxh64(key.as_bytes(), 1) % (size - 1) + 1,
                weight: weight / total,
                target: 0.0,
                next: 0,
            })
            .collect();
        if entries.is_empty() || size < 2 {
            return Self::default();
        }
        let heaviest = entries.iter().map(|e| e.weight).fold(0.0, f64::max);
        let mut table = vec![u32::MAX; size as usize];
        let mut filled = 0;
        let mut round = 1.0;
        'fill: loop {
            for entry in &mut entries {
                if round * entry.weight < entry.target {
                    continue;
                }
                entry.target += heaviest;
                let slot = loop {
                    let at = (entry.offset + entry.skip * entry.next) % size;
                    entry.next += 1;
                    if table[at as usize] == u32::MAX {
                        break at as usize;
                    }
                };
                table[slot] = entry.host;
                filled += 1;
                if filled == size {
                    break 'fill;
                }
            }
            round += 1.0;
        }
        Self { table }
    }

    /// The host of a hash; further attempts turn its bits over.
    #[must_use]
    pub fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let hash = match attempt {
            0 => hash,
            n => hash ^ (u64::MAX - u64::from(n) + 1),
        };
        self.table
            .get((hash % self.table.len() as u64) as usize)
            .map(|host| *host as usize)
    }
}

/// MurmurHash2, 64-bit variant A, as Envoy's `MURMUR_HASH_2` uses it.
#[must_use]
pub fn murmur2_64a(data: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |k: u64| {
        let k = k.wrapping_mul(M);
        (k ^ (k >> 47)).wrapping_mul(M)
    };
    let mut h = seed ^ (data.len() as u64).wrapping_mul(M);
    let (words, tail) = data.as_chunks::<8>();
    for word in words {
        h = (h ^ mix(u64::from_le_bytes(*word))).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        h = (h ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    h = (h ^ (h >> 47)).wrapping_mul(M);
    h ^ (h >> 47)
}
