//! How clients are asked to go while a listener or the whole proxy drains: with their answers, at
//! once or more and more of them, so that not all connect anew in the same second; and, later, on
//! connections of HTTP that have nothing to answer. As Envoy 1.40 does, by measurement.
use std::time::Duration;

/// How clients are asked to go (`--drain-strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// With a chance that rises from none to certainty over half of the drain time.
    #[default]
    Gradual,
    /// Every one with its next answer.
    Immediate,
}

/// In so many seconds the chance rises to certainty.
fn ramp(time: Duration) -> u64 {
    time.as_secs().div_ceil(2).max(1)
}

/// Whether every client is asked by now, `elapsed` after the drain began.
#[must_use]
pub fn asks_all(strategy: Strategy, elapsed: Duration, time: Duration) -> bool {
    strategy == Strategy::Immediate || elapsed >= time || elapsed.as_secs() >= ramp(time)
}

/// Whether the client of one answer is asked, `elapsed` after the drain began: one draw for each
/// answer, with any number as `random`. Elapsed seconds count when they are whole.
#[must_use]
pub fn asks(strategy: Strategy, elapsed: Duration, time: Duration, random: u64) -> bool {
    asks_all(strategy, elapsed, time) || elapsed.as_secs() > random % ramp(time)
}

/// How long after its begin a drain asks on a connection without waiting for an answer: `random`
/// picks a moment between two thirds of the drain time and its end, less the time that what is
/// under way has then (`drain_timeout`). None = the drain time has no room for it.
#[must_use]
pub fn asks_unanswered(time: Duration, drain_timeout: Duration, random: u64) -> Option<Duration> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let from = ms(time) / 3 * 2;
    let to = ms(time).checked_sub(ms(drain_timeout))?;
    let room = to.checked_sub(from).filter(|room| *room > 0)?;
    Some(Duration::from_millis(from + random % room))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(600);

    /// How many of three hundred evenly spread draws ask.
    fn share(strategy: Strategy, elapsed: Duration, time: Duration) -> usize {
        (0..300)
            .filter(|random| asks(strategy, elapsed, time, *random))
            .count()
    }

    #[test]
    fn the_chance_rises_over_half_of_the_time() {
        let at = |ms| share(Strategy::Gradual, Duration::from_millis(ms), TIME);
        assert_eq!(
            [0, 999, 1000, 60_000, 150_000, 299_999].map(at),
            [0, 0, 1, 60, 150, 299]
        );
        assert_eq!([300_000, 301_000, 6_000_000].map(at), [300; 3]);
        // Of an odd time the greater half.
        let nine = |ms| {
            share(
                Strategy::Gradual,
                Duration::from_millis(ms),
                Duration::from_secs(9),
            )
        };
        assert_eq!(
            [900, 1000, 2500, 4999, 5000].map(nine),
            [0, 60, 120, 240, 300]
        );
    }

    #[test]
    fn at_once_is_at_once() {
        assert_eq!(share(Strategy::Immediate, Duration::ZERO, TIME), 300);
        assert!(asks_all(Strategy::Gradual, Duration::ZERO, Duration::ZERO));
        let early = Duration::from_millis(1);
        assert!(!asks_all(Strategy::Gradual, early, TIME));
        assert!(asks(Strategy::Gradual, Duration::ZERO, Duration::ZERO, 7));
    }

    #[test]
    fn idle_connections_are_asked_in_the_last_third() {
        let timeout = Duration::from_secs(1);
        let at = |secs, random| asks_unanswered(Duration::from_secs(secs), timeout, random);
        assert_eq!(at(9, 0), Some(Duration::from_secs(6)));
        assert_eq!(at(9, 1_999), Some(Duration::from_millis(7_999)));
        assert_eq!(at(9, 2_000), Some(Duration::from_secs(6)));
        for secs in 0..=3 {
            assert_eq!(at(secs, 7), None, "{secs}");
        }
        assert_eq!(asks_unanswered(timeout, TIME, 1), None);
    }
}
