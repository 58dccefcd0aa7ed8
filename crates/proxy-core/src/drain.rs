//! Whether a client is asked to go while a listener or the whole proxy drains: at once, or more and
//! more of them over the drain time, so that not all connect anew in the same second.
use std::time::Duration;

/// How clients are asked to go (`--drain-strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// With a chance that rises from none to certainty over the drain time.
    #[default]
    Gradual,
    /// Every one with its next answer.
    Immediate,
}

/// Whether every client is asked by now, `elapsed` after the drain began.
#[must_use]
pub fn asks_all(strategy: Strategy, elapsed: Duration, time: Duration) -> bool {
    strategy == Strategy::Immediate || elapsed >= time
}

/// Whether the client of one request is asked, `elapsed` after the drain began: one draw for each
/// request, with any number as `random`.
#[must_use]
pub fn asks(strategy: Strategy, elapsed: Duration, time: Duration, random: u64) -> bool {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    asks_all(strategy, elapsed, time) || ms(elapsed) > random % ms(time).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(600);

    /// How many of a thousand evenly spread draws ask.
    fn share(strategy: Strategy, elapsed: Duration) -> usize {
        let draws = (0..1000).map(|n| n * 600);
        draws
            .filter(|random| asks(strategy, elapsed, TIME, *random))
            .count()
    }

    #[test]
    fn the_chance_rises_with_the_time() {
        let at = |seconds| share(Strategy::Gradual, Duration::from_secs(seconds));
        assert_eq!([0, 60, 300, 450].map(at), [0, 100, 500, 750]);
        assert_eq!([600, 601, 6000].map(at), [1000; 3]);
    }

    #[test]
    fn at_once_is_at_once() {
        assert_eq!(share(Strategy::Immediate, Duration::ZERO), 1000);
        assert!(asks_all(Strategy::Gradual, Duration::ZERO, Duration::ZERO));
        let early = Duration::from_millis(1);
        assert!(!asks_all(Strategy::Gradual, early, TIME));
        assert!(asks(Strategy::Gradual, Duration::ZERO, Duration::ZERO, 7));
    }
}
