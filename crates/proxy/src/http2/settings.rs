//! What each side tells the other about itself (RFC 9113 section 6.5).

use super::frame::{MOST, PAYLOAD};
use super::reason::{ConnectionError, Reason};

/// Identifiers of settings.
pub(super) mod id {
    pub(in super::super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in super::super) const ENABLE_PUSH: u16 = 2;
    pub(in super::super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in super::super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in super::super) const MAX_FRAME_SIZE: u16 = 5;
    /// RFC 8441.
    pub(in super::super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// What this side is set to. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decoder's table.
    pub header_table: u32,
    /// Streams that the peer may have open.
    pub max_streams: u32,
    /// Window of a stream.
    pub stream_window: u32,
    /// Window of the connection.
    pub connection_window: u32,
    /// Extended CONNECT is served (RFC 8441).
    pub connect_protocol: bool,
    /// Largest list of header fields, names and values.
    pub header_list: usize,
    /// Most header fields, cookie crumbs each.
    pub headers: usize,
    /// Frames that may wait to be sent.
    pub outbound_frames: u32,
    /// Of these, control frames.
    pub outbound_control: u32,
    /// Empty DATA, HEADERS and CONTINUATION frames in a row.
    pub empty_frames: u32,
    /// PRIORITY frames per stream.
    pub priority_frames: u32,
    /// WINDOW_UPDATE frames per DATA frame sent.
    pub window_updates: u32,
}

impl Default for Settings {
    /// As Envoy's are.
    fn default() -> Self {
        Self {
            header_table: 4096,
            max_streams: 1024,
            stream_window: 16 << 20,
            connection_window: 24 << 20,
            connect_protocol: false,
            header_list: 60 * 1024,
            headers: 100,
            outbound_frames: 10_000,
            outbound_control: 1000,
            empty_frames: 1,
            priority_frames: 100,
            window_updates: 10,
        }
    }
}

/// What the peer is set to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Its first settings came.
    pub(super) told: bool,
    pub(super) max_streams: u32,
    pub(super) stream_window: u32,
    pub(super) frame: usize,
    pub(super) connect_protocol: bool,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            told: false,
            // What RFC 9113 section 6.5.2 asks every server to take.
            max_streams: 100,
            stream_window: 65_535,
            frame: PAYLOAD,
            connect_protocol: false,
        }
    }
}

impl Peer {
    /// Takes one setting. Unknown ones are ignored.
    pub(super) fn set(&mut self, id: u16, value: u32, server: bool) -> Result<(), ConnectionError> {
        match id {
            id::ENABLE_PUSH if value > 1 || (value == 1 && !server) => {
                Err(ConnectionError::protocol("bad ENABLE_PUSH"))
            }
            id::MAX_CONCURRENT_STREAMS => {
                self.max_streams = value;
                Ok(())
            }
            id::INITIAL_WINDOW_SIZE if value > MOST => Err(ConnectionError::new(
                Reason::FLOW_CONTROL_ERROR,
                "INITIAL_WINDOW_SIZE too large",
            )),
            id::INITIAL_WINDOW_SIZE => {
                self.stream_window = value;
                Ok(())
            }
            id::MAX_FRAME_SIZE => {
                let size = value as usize;
                if !(PAYLOAD..1 << 24).contains(&size) {
                    return Err(ConnectionError::protocol("bad MAX_FRAME_SIZE"));
                }
                self.frame = size;
                Ok(())
            }
            id::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                Err(ConnectionError::protocol("bad ENABLE_CONNECT_PROTOCOL"))
            }
            id::ENABLE_CONNECT_PROTOCOL => {
                self.connect_protocol = value == 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
