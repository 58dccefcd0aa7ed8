//! Pod addresses of one node: handed out in turn, so that a freed address rests before reuse.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Free and used addresses of a node's range; the first host address is the node's own.
#[derive(Debug)]
pub struct AddressPool {
    first: u32,
    count: u32,
    next: u32,
    used: BTreeSet<u32>,
}

impl AddressPool {
    /// All addresses of the range but network, node (first) and broadcast.
    pub fn new(range: Ipv4Net) -> Self {
        let network = u32::from(range.network());
        let broadcast = u32::from(range.broadcast());
        Self {
            first: network + 2,
            count: broadcast.saturating_sub(network + 2),
            next: 0,
            used: BTreeSet::new(),
        }
    }

    /// The next free address; `None` when all are in use.
    pub fn take(&mut self) -> Option<Ipv4Addr> {
        for step in 0..self.count {
            let offset = (self.next + step) % self.count;
            if self.used.insert(offset) {
                self.next = (offset + 1) % self.count;
                return Some(Ipv4Addr::from(self.first + offset));
            }
        }
        None
    }

    /// Gives an address back; foreign ones are ignored.
    pub fn give_back(&mut self, address: Ipv4Addr) {
        if let Some(offset) = u32::from(address).checked_sub(self.first) {
            self.used.remove(&offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_before_reuse() {
        let mut pool = AddressPool::new("10.0.1.0/29".parse().unwrap());
        let all: Vec<String> = std::iter::from_fn(|| pool.take())
            .map(|a| a.to_string())
            .collect();
        assert_eq!(
            all,
            ["10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6"]
        );
        pool.give_back("10.0.1.4".parse().unwrap());
        assert_eq!(pool.take().unwrap().to_string(), "10.0.1.4");
        assert_eq!(pool.take(), None);
        pool.give_back("10.0.1.3".parse().unwrap());
        pool.give_back("10.0.1.6".parse().unwrap());
        pool.give_back("10.0.0.1".parse().unwrap());
        assert_eq!(pool.take().unwrap().to_string(), "10.0.1.6");
    }
}
