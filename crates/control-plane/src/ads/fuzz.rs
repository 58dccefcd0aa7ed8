//! One stream's state under any requests, for the crate's hidden `fuzz` module.

use lateen_xds::{ResourceSet, ResourceType};
use lateen_xds_proto::Message;

pub use super::delta::Delta;
pub use super::sotw::Sotw;
use super::state::{Dialect, MOST_NAMES, Outcome, Reason};
use super::stream::bounded;

/// Takes length-delimited requests in, answers them as a stream would, and pushes each set
/// after every request. The number of requests taken in.
///
/// # Panics
/// A rule of the protocol is broken: a request for names stays without an answer, progress
/// is counted for a type nobody asked for, or names are kept beyond their bound.
pub fn requests<D: Dialect<Request: Message + Default>>(
    mut bytes: &[u8],
    sets: &[ResourceSet],
) -> usize {
    let mut state = D::default();
    let mut taken = 0;
    while !bytes.is_empty() {
        let Ok(request) = D::Request::decode_length_delimited(&mut bytes) else {
            return taken;
        };
        let Some(t) = ResourceType::from_type_url(D::type_url(&request)) else {
            continue;
        };
        let Ok(outcome) = bounded(&mut state, t, &request) else {
            return taken;
        };
        taken += 1;
        assert!(state.count(t) <= MOST_NAMES);
        assert!(state.names(t).is_some(), "asked for and not known");
        for (i, set) in sets.iter().enumerate() {
            let reason = match (i, &outcome) {
                (0, Outcome::Respond) => Reason::Asked,
                _ => Reason::Changed,
            };
            let built = state.respond(t, set, "1", reason);
            let again = state.respond(t, set, "1", Reason::Changed);
            assert!(again.is_none(), "what was just sent is sent again");
            if let Some(built) = built {
                state.forget(t, &built.changed[..built.changed.len() / 2]);
            }
        }
        assert!(
            state
                .progress()
                .iter()
                .all(|(t, _)| state.names(*t).is_some())
        );
    }
    taken
}
