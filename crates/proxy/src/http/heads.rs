//! Heads that were used: their memory serves the next messages of the thread.

use std::cell::RefCell;

use super::head::Head;

/// Most heads that a thread keeps.
const KEEP: usize = 256;
/// Largest that is kept, in bytes.
const LARGE: usize = 8 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Head>> = const { RefCell::new(Vec::new()) };
}

/// An empty head.
pub fn take() -> Head {
    FREE.with(|free| free.borrow_mut().pop())
        .unwrap_or_default()
}

/// Gives a head back.
pub fn give(mut head: Head) {
    if head.capacity() == 0 || head.capacity() > LARGE {
        return;
    }
    head.clear();
    // The thread may be ending and its heads gone already.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < KEEP {
            free.push(head);
        }
    });
}

/// Informational answers that are passed on where that is asked for.
pub fn is_special(status: u16) -> bool {
    (100..=104).contains(&status) && status != 101
}
