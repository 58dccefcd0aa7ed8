//! What targets that drive whole connections share: a runtime a thread, panics of tasks, which a
//! runtime swallows, and the cuts in which an input arrives.

use std::cell::Cell;
use std::future::Future;
use std::sync::Once;

use tokio::runtime::{Builder, Runtime};

use crate::bytes::hash;
use crate::mutate::Random;

/// A runtime of this thread. It lives as long as the process: a runtime must not be dropped while
/// the thread's other locals are.
fn leaked(builder: &mut Builder) -> &'static Runtime {
    let runtime = builder.enable_all().build().expect("a runtime");
    Box::leak(Box::new(runtime))
}

thread_local! {
    static REAL: &'static Runtime = leaked(&mut Builder::new_current_thread());
    static PAUSED: &'static Runtime = leaked(Builder::new_current_thread().start_paused(true));
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// The thread's runtime with the real clock.
#[must_use]
pub fn real() -> &'static Runtime {
    REAL.with(|runtime| *runtime)
}

/// Runs on the thread's runtime whose clock jumps to the next timeout when all tasks wait. Panics
/// when a task did.
pub fn run_paused<T>(work: impl Future<Output = T>) -> T {
    watched(|| PAUSED.with(|runtime| runtime.block_on(work)))
}

/// Runs something and panics when a task on this thread did meanwhile.
pub fn watched<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with(|count| count.set(count.get() + 1));
            next(info);
        }));
    });
    let before = PANICS.with(Cell::get);
    let out = work();
    assert_eq!(PANICS.with(Cell::get), before, "a task panicked");
    out
}

/// Lets every task that can go on do so, a few times, with their IO.
pub async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

/// The input in a few pieces as it may arrive: in one, or cut at places that it decides itself.
#[must_use]
pub fn pieces(data: &[u8], cut: bool) -> Vec<&[u8]> {
    if !cut {
        return vec![data];
    }
    let mut random = Random::new(hash(data));
    let mut rest = data;
    let mut list = Vec::new();
    while list.len() < 6 && rest.len() > 1 {
        let (piece, after) = rest.split_at(1 + random.below(rest.len().min(200)));
        list.push(piece);
        rest = after;
    }
    list.push(rest);
    list
}
