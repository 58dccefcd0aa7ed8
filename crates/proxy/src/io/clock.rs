//! The clock of a worker. Reading the kernel's takes longer than most of what a request is asked
//! between two readings, and nothing passes meanwhile: a reading holds until the thread slept or
//! bytes came in. Threads that do not say when that is read the kernel's clock every time.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the distance between the two clocks of the kernel is trusted: a change of the wall clock
/// is seen after this.
const TRUSTED: Duration = Duration::from_secs(1);

/// One reading.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Nanoseconds since the Unix epoch.
    wall: u64,
    /// Nanoseconds since the process began to look at the clock.
    running: u64,
}

#[derive(Debug)]
struct Clock {
    /// Somebody calls [`passed`] on this thread.
    attended: Cell<bool>,
    /// The reading still holds.
    holds: Cell<bool>,
    last: Cell<Reading>,
    /// The last reading of both clocks.
    both: Cell<Reading>,
}

const NONE: Reading = Reading {
    wall: 0,
    running: 0,
};

thread_local! {
    static CLOCK: Clock = const {
        Clock {
            attended: Cell::new(false),
            holds: Cell::new(false),
            last: Cell::new(NONE),
            both: Cell::new(NONE),
        }
    };
}

/// From now on this thread calls [`passed`] whenever it slept or read from a socket.
pub fn attend() {
    CLOCK.with(|clock| clock.attended.set(true));
}

/// Time may have passed: the next look is a new reading.
pub fn passed() {
    CLOCK.with(|clock| clock.holds.set(false));
}

/// Nanoseconds since the Unix epoch.
pub fn wall_ns() -> u64 {
    CLOCK.with(Clock::now).wall
}

/// Nanoseconds since the process began to look at the clock; never goes back.
pub fn running_ns() -> u64 {
    CLOCK.with(Clock::now).running
}

impl Clock {
    fn now(&self) -> Reading {
        if self.holds.get() {
            return self.last.get();
        }
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        let running = BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64;
        let both = self.both.get();
        let since = running.saturating_sub(both.running);
        let now = if both.wall != 0 && u128::from(since) < TRUSTED.as_nanos() {
            Reading {
                wall: both.wall + since,
                running,
            }
        } else {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH);
            let wall = wall.map_or(0, |d| d.as_nanos() as u64);
            self.both.set(Reading { wall, running });
            Reading { wall, running }
        };
        self.last.set(now);
        self.holds.set(self.attended.get());
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_holds_where_it_is_attended_to() {
        std::thread::spawn(|| {
            let first = running_ns();
            std::thread::sleep(Duration::from_millis(2));
            let second = running_ns();
            assert!(second >= first + 2_000_000, "nobody attends: always new");
            attend();
            let third = (running_ns(), wall_ns());
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!((running_ns(), wall_ns()), third);
            passed();
            let fourth = (running_ns(), wall_ns());
            assert!(fourth.0 >= third.0 + 2_000_000 && fourth.1 >= third.1 + 2_000_000);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn it_is_the_wall_clock() {
        let seconds = |ns: u64| ns / 1_000_000_000;
        let system = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let own = seconds(wall_ns());
        assert!(own.abs_diff(system) <= 1, "{own} and {system}");
    }
}
