//! Deadlines of one worker. A connection owns one slot and moves its deadline
//! by writing a number; only a deadline earlier than the slot's next look is
//! scheduled anew, so the usual request arms its timeouts without touching a
//! queue. One task sleeps until the earliest look.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock;

/// No deadline.
pub const NEVER: u64 = u64::MAX;
/// Looks happen on multiples of so many milliseconds.
const GRAIN: u64 = 4;

/// Milliseconds since the process began to look at the clock.
pub fn now_ms() -> u64 {
    clock::running_ns() / 1_000_000
}

/// The deadline that lies `after` from now; none is [`NEVER`].
pub fn deadline(now: u64, after: Option<Duration>) -> u64 {
    after.map_or(NEVER, |d| now.saturating_add(d.as_millis() as u64))
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    deadline: u64,
    look: u64,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Timers {
    slots: Vec<Slot>,
    free: Vec<u32>,
    looks: BinaryHeap<Reverse<(u64, u32, u32)>>,
    driver: Option<Waker>,
    sleeping_until: u64,
}

thread_local! {
    static TIMERS: RefCell<Timers> = RefCell::default();
}

impl Timers {
    fn schedule(&mut self, index: u32, at: u64) {
        let at = at.div_ceil(GRAIN) * GRAIN;
        let slot = &mut self.slots[index as usize];
        slot.look = at;
        self.looks.push(Reverse((at, index, slot.generation)));
        if at < self.sleeping_until
            && let Some(driver) = self.driver.take()
        {
            driver.wake();
        }
    }

    /// Wakes what is due and says when to look again.
    fn turn(&mut self, now: u64) -> u64 {
        while let Some(Reverse((at, index, generation))) = self.looks.peek().copied() {
            if at > now {
                return at;
            }
            self.looks.pop();
            let slot = &mut self.slots[index as usize];
            if slot.generation != generation || slot.look != at {
                continue;
            }
            slot.look = NEVER;
            if slot.deadline <= now {
                if let Some(waker) = slot.waker.take() {
                    waker.wake();
                }
            } else if slot.deadline != NEVER {
                let deadline = slot.deadline;
                self.schedule(index, deadline);
            }
        }
        NEVER
    }
}

/// Wakes the timers of this thread; runs as one task beside the work.
pub async fn drive() {
    loop {
        clock::passed();
        let next = TIMERS.with(|t| t.borrow_mut().turn(now_ms()));
        let mut sleep = pin!(async {
            match next {
                NEVER => std::future::pending().await,
                at => tokio::time::sleep(Duration::from_millis(at.saturating_sub(now_ms()))).await,
            }
        });
        poll_fn(|cx| {
            let earlier = TIMERS.with(|t| {
                let mut timers = t.borrow_mut();
                timers.sleeping_until = next;
                timers.driver = Some(cx.waker().clone());
                timers.looks.peek().is_some_and(|Reverse(l)| l.0 < next)
            });
            if earlier {
                return Poll::Ready(());
            }
            sleep.as_mut().poll(cx)
        })
        .await;
    }
}

/// One deadline.
#[derive(Debug)]
pub struct Timer {
    index: u32,
    /// The slot's deadline, so that nothing is done where nothing changes.
    deadline: Cell<u64>,
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer {
    /// A timer without a deadline.
    pub fn new() -> Self {
        TIMERS.with(|t| {
            let timers = &mut *t.borrow_mut();
            let index = timers.free.pop().unwrap_or_else(|| {
                timers.slots.push(Slot::default());
                timers.slots.len() as u32 - 1
            });
            let slot = &mut timers.slots[index as usize];
            slot.deadline = NEVER;
            slot.look = NEVER;
            Self {
                index,
                deadline: Cell::new(NEVER),
            }
        })
    }

    /// Moves the deadline to a moment of [`now_ms`]'s clock; [`NEVER`] clears it.
    pub fn set(&self, deadline: u64) {
        if self.deadline.replace(deadline) == deadline {
            return;
        }
        TIMERS.with(|t| {
            let mut timers = t.borrow_mut();
            let slot = &mut timers.slots[self.index as usize];
            slot.deadline = deadline;
            if deadline < slot.look {
                timers.schedule(self.index, deadline);
            }
        });
    }

    /// Ready once the deadline has passed.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline.get() == NEVER {
            return Poll::Pending;
        }
        TIMERS.with(|t| {
            let mut timers = t.borrow_mut();
            let slot = &mut timers.slots[self.index as usize];
            if slot.deadline <= now_ms() {
                return Poll::Ready(());
            }
            if !slot.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                slot.waker = Some(cx.waker().clone());
            }
            // A look that passed while nobody waited is scheduled again.
            if slot.look == NEVER {
                let deadline = slot.deadline;
                timers.schedule(self.index, deadline);
            }
            Poll::Pending
        })
    }

    /// Waits so long.
    pub async fn sleep(&self, time: Duration) {
        self.set(now_ms() + time.as_millis() as u64);
        poll_fn(|cx| self.poll(cx)).await;
        self.set(NEVER);
    }

    /// Runs a future until the deadline; `None` when that came first.
    pub async fn race<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => self.poll(cx).map(|()| None),
        })
        .await
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The thread may be ending and its timers gone already.
        let _ = TIMERS.try_with(|t| {
            let timers = &mut *t.borrow_mut();
            let slot = &mut timers.slots[self.index as usize];
            slot.generation = slot.generation.wrapping_add(1);
            slot.deadline = NEVER;
            slot.look = NEVER;
            slot.waker = None;
            timers.free.push(self.index);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn deadlines_fire_in_order_and_can_move() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            tokio::task::spawn_local(drive());
            let timer = Timer::new();
            let begin = Instant::now();
            timer.sleep(Duration::from_millis(30)).await;
            assert!(begin.elapsed() >= Duration::from_millis(29));
            // Later, then earlier than the scheduled look.
            timer.set(now_ms() + 60_000);
            timer.set(now_ms() + 20);
            let never = timer.race(std::future::pending::<()>()).await;
            assert!(never.is_none());
            timer.set(now_ms() + 60_000);
            assert_eq!(timer.race(async { 5 }).await, Some(5));
            assert!(begin.elapsed() < Duration::from_secs(5));
        });
    }
}
