//! What resources have alike takes memory once: names that were read lately, and settings equal to
//! those of the resource before. A mesh's clusters differ in little but their names.
use std::cell::RefCell;

use lateen_proxy_core::config::cluster::{CircuitBreaker, UpstreamHttp};
use lateen_proxy_core::config::{Name, Rare};

/// How many names are remembered, a power of two.
const SLOTS: usize = 256;
/// Longer names are not: what is remembered outlives its resource, and stays below 64 KiB.
const LONGEST: usize = 256;

thread_local! {
    static NAMES: RefCell<Vec<Name>> = RefCell::new(vec![Name::default(); SLOTS]);
    static LAST: RefCell<Last> = RefCell::default();
}

/// The settings of the last cluster that had any of its own.
#[derive(Default)]
struct Last {
    http: Rare<UpstreamHttp>,
    breakers: Rare<[CircuitBreaker; 2]>,
}

/// The text as a name, the same one as before where it was read not long ago.
pub(crate) fn name(text: &str) -> Name {
    if text.is_empty() || text.len() > LONGEST {
        return text.into();
    }
    // FNV-1a; who makes names collide gains nothing, they are only kept twice then.
    let fold = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = text.bytes().fold(0x811c_9dc5, fold);
    NAMES.with_borrow_mut(|names| {
        let slot = &mut names[hash as usize % SLOTS];
        if **slot != *text {
            *slot = text.into();
        }
        slot.clone()
    })
}

/// HTTP settings of a cluster.
pub(super) fn http(value: UpstreamHttp) -> Rare<UpstreamHttp> {
    LAST.with_borrow_mut(|last| Rare::shared(value, &mut last.http))
}

/// Circuit breakers of a cluster.
pub(super) fn breakers(value: [CircuitBreaker; 2]) -> Rare<[CircuitBreaker; 2]> {
    LAST.with_borrow_mut(|last| Rare::shared(value, &mut last.breakers))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_name_read_again_is_the_same() {
        let (one, two) = (name("a"), name("a"));
        assert!(Arc::ptr_eq(&one, &two));
        // Whatever stands in a slot, the text is right.
        for number in 0..10_000 {
            let text = (number % 3000).to_string();
            assert_eq!(*name(&text), *text);
        }
        let long = "x".repeat(LONGEST + 1);
        assert!(!Arc::ptr_eq(&name(&long), &name(&long)));
        assert_eq!(*name(""), *"");
    }
}
