//! Error codes of RFC 9113 section 7, and what ends a connection or a stream.

use std::fmt;

/// An error code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    /// Nothing went wrong.
    pub const NO_ERROR: Self = Self(0);
    /// The peer broke a rule that has no code of its own.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// This side failed.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More data than a window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame on a stream that is closed.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame with a length that its kind does not allow.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// Nothing was done for the stream.
    pub const REFUSED_STREAM: Self = Self(7);
    /// The stream is wanted no more.
    pub const CANCEL: Self = Self(8);
    /// The header compression's state is lost.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The connection behind a CONNECT broke.
    pub const CONNECT_ERROR: Self = Self(10);
    /// The peer asks for too much work.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason:?}: {details}")]
pub struct ConnectionError {
    /// What the GOAWAY says.
    pub reason: Reason,
    /// Why, for logs.
    pub details: &'static str,
}

impl ConnectionError {
    pub(super) const fn new(reason: Reason, details: &'static str) -> Self {
        Self { reason, details }
    }

    pub(super) const fn protocol(details: &'static str) -> Self {
        Self::new(Reason::PROTOCOL_ERROR, details)
    }

    pub(super) const fn size(details: &'static str) -> Self {
        Self::new(Reason::FRAME_SIZE_ERROR, details)
    }

    pub(super) const fn calm(details: &'static str) -> Self {
        Self::new(Reason::ENHANCE_YOUR_CALM, details)
    }
}

/// Why a stream is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The peer reset it.
    Remote(Reason),
    /// This side reset it, for what the peer sent.
    Local(Reason),
    /// Its connection ended.
    Connection,
}
