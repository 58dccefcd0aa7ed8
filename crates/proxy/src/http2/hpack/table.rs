//! The static table (RFC 7541 appendix A) and the decoder's dynamic one, whose
//! entries lie one after another in one piece of memory.

use std::collections::VecDeque;

/// The static table; index 1 is the first.
pub const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// What an entry counts beside its bytes (section 4.1).
const OVERHEAD: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    name: usize,
    value: usize,
}

impl Entry {
    fn size(self) -> usize {
        self.name + self.value + OVERHEAD
    }

    fn end(self) -> usize {
        self.start + self.name + self.value
    }
}

/// The dynamic table. Newest entry first, as indexes count.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    size: usize,
    most: usize,
}

impl Table {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// Sets the largest size and evicts what does not fit any more.
    pub(super) fn resize(&mut self, most: usize) {
        self.most = most;
        self.evict(0);
    }

    /// The field at an index of both tables, which counts from 1.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        if let Some(field) = STATIC.get(index.wrapping_sub(1)) {
            return Some(*field);
        }
        let entry = *self.entries.get(index.checked_sub(STATIC.len() + 1)?)?;
        let (name, value) = self.bytes[entry.start..entry.end()].split_at(entry.name);
        Some((name, value))
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.most {
            let Some(oldest) = self.entries.pop_back() else {
                break;
            };
            self.size -= oldest.size();
        }
        if self.entries.is_empty() {
            self.bytes.clear();
        }
    }

    /// Appends the name of the field at `index` to a name that is put in next.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        if !self.make_room(name.len() + value.len()) {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.push(Entry {
            start,
            name: name.len(),
            value: value.len(),
        });
    }

    /// Puts an entry in whose name is that of the field at `index`, which is
    /// there.
    pub(super) fn insert_named(&mut self, index: usize, value: &[u8]) {
        if let Some((name, _)) = STATIC.get(index.wrapping_sub(1)) {
            return self.insert(name, value);
        }
        // The entry that names may be evicted by the one that is named.
        let name = self
            .get(index)
            .map_or_else(Vec::new, |(name, _)| name.to_vec());
        self.insert(&name, value);
    }

    /// False when the entry is larger than the table, which empties it
    /// (section 4.4).
    fn make_room(&mut self, bytes: usize) -> bool {
        let size = bytes + OVERHEAD;
        self.evict(size);
        if size > self.most {
            return false;
        }
        // Evicted bytes stay in front until they are as many as may live.
        if self.bytes.len() + bytes > 2 * self.most
            && let Some(oldest) = self.entries.back()
        {
            let gone = oldest.start;
            self.bytes.drain(..gone);
            for entry in &mut self.entries {
                entry.start -= gone;
            }
        }
        true
    }

    fn push(&mut self, entry: Entry) {
        self.size += entry.size();
        self.entries.push_front(entry);
    }

    /// Size as section 4.1 counts it.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Memory held.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_however_often_entries_change() {
        let mut table = Table::new(200);
        for n in 0..10_000_u32 {
            let value = n.to_string();
            table.insert(b"name", value.as_bytes());
            assert_eq!(table.get(62), Some((&b"name"[..], value.as_bytes())));
            assert!(table.size() <= 200 && table.memory() <= 400);
        }
        assert_eq!(table.get(66), Some((&b"name"[..], &b"9995"[..])));
        assert_eq!(table.get(67), None);
        table.insert_named(66, b"other");
        assert_eq!(table.get(62), Some((&b"name"[..], &b"other"[..])));
        table.insert(&[b'x'; 200], b"");
        assert_eq!((table.get(62), table.size()), (None, 0));
    }
}
