//! A bucket of tokens that fills evenly with time, shared by all workers. Its whole state is the
//! moment at which it was (or will be) empty; time is an argument.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A token bucket, full at first.
#[derive(Debug)]
pub struct TokenBucket {
    most: u32,
    /// Nanoseconds in which one token comes.
    step: u64,
    /// The moment, in nanoseconds, at which the bucket held nothing.
    empty_at: AtomicU64,
}

impl TokenBucket {
    /// A bucket that holds up to `most` tokens and gets `per_fill` of them in every `interval`.
    #[must_use]
    pub fn new(most: u32, per_fill: u32, interval: Duration) -> Self {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self {
            most,
            step: (interval / u64::from(per_fill.max(1))).max(1),
            empty_at: AtomicU64::new(0),
        }
    }

    /// How many tokens it can hold.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.most
    }

    fn full_time(&self) -> u64 {
        self.step.saturating_mul(self.most.into())
    }

    /// Nanoseconds in which one token comes.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Takes a token at `now`, nanoseconds of a clock that starts at least a filling time ago.
    pub fn take(&self, now: u64) -> bool {
        self.take_many(1, now)
    }

    /// Takes so many tokens at once, or none.
    pub fn take_many(&self, count: u64, now: u64) -> bool {
        let taken = |empty_at: u64| {
            let empty_at = empty_at.max(now.saturating_sub(self.full_time()));
            let after = empty_at.saturating_add(self.step.saturating_mul(count));
            (after <= now && self.most > 0).then_some(after)
        };
        let (set, get) = (Ordering::AcqRel, Ordering::Acquire);
        self.empty_at.fetch_update(set, get, taken).is_ok()
    }

    /// Whole tokens in it at `now`.
    #[must_use]
    pub fn left(&self, now: u64) -> u32 {
        let since = now.saturating_sub(self.empty_at.load(Ordering::Acquire));
        let tokens = u32::try_from(since / self.step).unwrap_or(u32::MAX);
        tokens.min(self.most)
    }

    /// How long from `now` until the next token comes; zero where one is there.
    #[must_use]
    pub fn wait(&self, now: u64) -> Duration {
        let next = self
            .empty_at
            .load(Ordering::Acquire)
            .saturating_add(self.step);
        Duration::from_nanos(next.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn fills_evenly_and_not_over() {
        let bucket = TokenBucket::new(3, 2, Duration::from_secs(1));
        let start = 1000 * SECOND;
        assert_eq!(bucket.left(start), 3);
        assert!((0..3).all(|_| bucket.take(start)));
        assert!(!bucket.take(start));
        assert_eq!(bucket.left(start), 0);
        assert_eq!(bucket.wait(start), Duration::from_millis(500));
        assert!(!bucket.take(start + SECOND / 2 - 1));
        assert!(bucket.take(start + SECOND / 2));
        assert!(!bucket.take(start + SECOND / 2));
        let later = start + 100 * SECOND;
        assert_eq!(bucket.left(later), 3);
        assert!(!bucket.take_many(4, later));
        assert!(bucket.take_many(0, later));
        assert_eq!((0..9).filter(|_| bucket.take(later)).count(), 3);
    }

    #[test]
    fn an_empty_bucket_gives_nothing() {
        let bucket = TokenBucket::new(0, 1, Duration::from_secs(1));
        assert!(!bucket.take(1000 * SECOND));
    }

    #[test]
    fn workers_share_it() {
        let bucket = TokenBucket::new(1000, 1, Duration::from_secs(3600));
        let now = 10_000_000 * SECOND;
        let taken: usize = std::thread::scope(|scope| {
            let taking = || (0..400).filter(|_| bucket.take(now)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(taking)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }
}
