//! Limits against floods, as Envoy counts them: frames that cost the peer next
//! to nothing and this side something.

use super::frame::{FrameHead, flag, kind};
use super::reason::ConnectionError;
use super::settings::Settings;

/// Requests among which half may be reset early, or be wrong.
const FEW: u64 = 500;
/// A reset of a request younger than this (ms), not yet answered, is early. Envoy's limit of one
/// second is one of whole seconds.
pub(super) const YOUNG_MS: u64 = 2000;
/// Bytes of a header block that may still follow when it is over its limit.
const OVERTIME: usize = 1 << 20;

/// What the peer sent so far.
#[derive(Debug, Default)]
pub(super) struct Guard {
    empty: u32,
    priorities: u64,
    window_updates: u64,
    opened: u64,
    data_sent: u64,
    closed: u64,
    resets: u64,
    faults: u64,
    late_resets: u64,
}

impl Guard {
    pub(super) fn opened(&mut self) {
        self.opened += 1;
    }

    pub(super) fn closed(&mut self) {
        self.closed += 1;
    }

    pub(super) fn data_sent(&mut self) {
        self.data_sent += 1;
    }

    /// Counts a frame with a message's part; `length` is without padding.
    pub(super) fn part(
        &mut self,
        head: FrameHead,
        length: usize,
        settings: &Settings,
    ) -> Result<(), ConnectionError> {
        let ends = head.kind != kind::CONTINUATION && head.has(flag::END_STREAM);
        if length > 0 || ends {
            self.empty = 0;
            return Ok(());
        }
        self.empty += 1;
        match self.empty > settings.empty_frames {
            true => Err(ConnectionError::calm("too many empty frames in a row")),
            false => Ok(()),
        }
    }

    pub(super) fn priority(&mut self, settings: &Settings) -> Result<(), ConnectionError> {
        self.priorities += 1;
        let most = u64::from(settings.priority_frames) * (1 + self.opened);
        match self.priorities > most {
            true => Err(ConnectionError::calm("too many PRIORITY frames")),
            false => Ok(()),
        }
    }

    pub(super) fn window_update(&mut self, settings: &Settings) -> Result<(), ConnectionError> {
        self.window_updates += 1;
        let by_data = u64::from(settings.window_updates) * self.data_sent;
        match self.window_updates > 5 + 2 * (self.opened + by_data) {
            true => Err(ConnectionError::calm("too many WINDOW_UPDATE frames")),
            false => Ok(()),
        }
    }

    /// Counts a stream that the peer reset before it was answered.
    pub(super) fn early_reset(&mut self) -> Result<(), ConnectionError> {
        self.resets += 1;
        match self.resets * 2 >= self.closed.max(FEW) {
            true => Err(ConnectionError::calm("too many early resets")),
            false => Ok(()),
        }
    }

    /// Counts a stream that is reset for what the peer got wrong: as cheap for it as a reset of its
    /// own (CVE-2025-8671).
    pub(super) fn fault(&mut self) {
        self.faults += 1;
    }

    /// Whether the peer gets so much wrong that it means to.
    pub(super) fn check_faults(&self) -> Result<(), ConnectionError> {
        match self.faults * 2 >= self.closed.max(FEW) {
            true => Err(ConnectionError::calm("too many faulty streams")),
            false => Ok(()),
        }
    }

    /// Counts a reset of a stream that is over already. One for each may cross with the stream's
    /// end on the wire.
    pub(super) fn late_reset(&mut self) -> Result<(), ConnectionError> {
        self.late_resets += 1;
        match self.late_resets > self.opened + FEW {
            true => Err(ConnectionError::calm("too many resets of closed streams")),
            false => Ok(()),
        }
    }

    /// Whether so many bytes of one block are more than anybody needs. What is
    /// over the limit is only read to keep the compression's state.
    pub(super) fn block(bytes: usize, settings: &Settings) -> Result<(), ConnectionError> {
        match bytes > settings.header_list + OVERTIME {
            true => Err(ConnectionError::calm("header block without end")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_requests_may_be_reset() {
        let mut guard = Guard::default();
        for _ in 0..249 {
            assert!(guard.early_reset().is_ok());
        }
        assert!(guard.early_reset().is_err());
        let mut guard = Guard::default();
        for n in 0..10_000 {
            guard.closed();
            if n % 3 == 0 {
                assert!(guard.early_reset().is_ok(), "{n}");
            }
        }
    }

    #[test]
    fn half_of_the_requests_may_be_wrong() {
        let mut guard = Guard::default();
        for _ in 0..249 {
            guard.fault();
        }
        assert!(guard.check_faults().is_ok());
        guard.fault();
        assert!(guard.check_faults().is_err());
        (0..501).for_each(|_| guard.closed());
        assert!(guard.check_faults().is_ok());
    }

    #[test]
    fn a_closed_stream_is_reset_once() {
        let mut guard = Guard::default();
        for _ in 0..10_000 {
            guard.opened();
            assert!(guard.late_reset().is_ok());
        }
        for _ in 0..FEW {
            assert!(guard.late_reset().is_ok());
        }
        assert!(guard.late_reset().is_err());
    }

    #[test]
    fn empty_frames_in_a_row() {
        let settings = Settings::default();
        let mut guard = Guard::default();
        let data = FrameHead::new(0, kind::DATA, 0, 1);
        let end = FrameHead::new(0, kind::DATA, flag::END_STREAM, 1);
        for _ in 0..10 {
            assert!(guard.part(data, 0, &settings).is_ok());
            assert!(guard.part(end, 0, &settings).is_ok());
        }
        assert!(guard.part(data, 0, &settings).is_ok());
        assert!(guard.part(data, 0, &settings).is_err());
    }

    #[test]
    fn window_updates_are_earned() {
        let settings = Settings::default();
        let mut guard = Guard::default();
        guard.opened();
        for _ in 0..7 {
            assert!(guard.window_update(&settings).is_ok());
        }
        assert!(guard.window_update(&settings).is_err());
        guard.data_sent();
        assert!(guard.window_update(&settings).is_ok());
    }
}
