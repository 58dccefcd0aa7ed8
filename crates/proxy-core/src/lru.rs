//! A map of bounded size that forgets what was not used for longest.
use std::sync::Arc;

use hashbrown::HashMap;

/// No place.
const NONE: usize = usize::MAX;

/// Values by bytes, at most so many; a list through their places says which was used last.
#[derive(Debug)]
pub struct Lru<T> {
    most: usize,
    places: HashMap<Arc<[u8]>, usize>,
    slots: Vec<Slot<T>>,
    newest: usize,
    oldest: usize,
}

#[derive(Debug)]
struct Slot<T> {
    /// Shared with its entry in the map: clients choose keys, and long ones.
    key: Arc<[u8]>,
    value: T,
    newer: usize,
    older: usize,
}

impl<T> Lru<T> {
    /// An empty map for up to `most` values, at least one.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            places: HashMap::new(),
            slots: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The value of a key, made where there is none; it is the one used last now.
    pub fn get_or_insert(&mut self, key: &[u8], make: impl FnOnce() -> T) -> &T {
        let place = match self.places.get(key) {
            Some(place) => {
                let place = *place;
                self.unlink(place);
                place
            }
            None => self.insert(key, make()),
        };
        self.link(place);
        &self.slots[place].value
    }

    /// Puts a value where there is room, in the place of the oldest if need be.
    fn insert(&mut self, key: &[u8], value: T) -> usize {
        let key: Arc<[u8]> = key.into();
        let slot = Slot {
            key: key.clone(),
            value,
            newer: NONE,
            older: NONE,
        };
        let place = if self.slots.len() < self.most {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let place = self.oldest;
            self.unlink(place);
            self.places.remove(&self.slots[place].key);
            self.slots[place] = slot;
            place
        };
        self.places.insert(key, place);
        place
    }

    fn unlink(&mut self, place: usize) {
        let Slot { newer, older, .. } = self.slots[place];
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older].newer = newer,
        }
    }

    fn link(&mut self, place: usize) {
        self.slots[place].newer = NONE;
        self.slots[place].older = self.newest;
        match self.newest {
            NONE => self.oldest = place,
            newest => self.slots[newest].newer = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes() {
        let mut lru = Lru::new(2);
        assert!(lru.is_empty());
        let mut made = 0;
        let mut get = |lru: &mut Lru<u32>, key: &str| {
            *lru.get_or_insert(key.as_bytes(), || {
                made += 1;
                made
            })
        };
        assert_eq!((get(&mut lru, "a"), get(&mut lru, "b")), (1, 2));
        assert_eq!(get(&mut lru, "a"), 1);
        assert_eq!(get(&mut lru, "c"), 3);
        assert_eq!(get(&mut lru, "a"), 1);
        assert_eq!(get(&mut lru, "b"), 4);
        assert_eq!((get(&mut lru, "a"), get(&mut lru, "c")), (1, 5));
        assert_eq!(lru.len(), 2);
        let mut one = Lru::new(0);
        for n in 0..100_u32 {
            assert_eq!(*one.get_or_insert(&n.to_le_bytes(), || n), n);
        }
        assert_eq!(one.len(), 1);
    }
}
