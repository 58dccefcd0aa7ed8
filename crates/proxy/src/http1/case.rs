//! Header names in other letters than lower-case ones, where a configuration asks for that
//! (`header_key_format`): as the peer wrote them, or with capitals. A head is written as ever and its
//! names are then changed in place, so that nobody else pays for it. Trailers stay lower-case, as
//! with Envoy.

use lateen_proxy_core::config::cluster::HeaderCase;

/// The names of a message as its sender wrote them.
#[derive(Clone, Debug)]
pub struct Names {
    /// One after the other, each with a line feed behind it.
    written: Vec<u8>,
    /// What the sender did not write gets capitals.
    capitals: bool,
}

impl Names {
    /// Of a head as it came.
    pub fn of(head: &[u8], capitals: bool) -> Self {
        let mut written = Vec::new();
        for line in head.split(|byte| *byte == b'\n') {
            let name = line.iter().position(|byte| *byte == b':');
            let name = &line[..name.unwrap_or(0)];
            if capitals || name.iter().any(u8::is_ascii_uppercase) {
                written.extend_from_slice(name);
                written.push(b'\n');
            }
        }
        Self { written, capitals }
    }

    /// Changes a name into what its sender wrote; of several ways the first.
    fn apply(&self, name: &mut [u8]) {
        let mut all = self.written.split(|byte| *byte == b'\n');
        match all.find(|written| written.eq_ignore_ascii_case(name)) {
            Some(written) => name.copy_from_slice(written),
            None if self.capitals => capitals(name),
            None => {}
        }
    }
}

/// What keeps the names of a message that comes in, if that is asked for.
pub fn kept(case: HeaderCase, head: &[u8]) -> Option<Box<Names>> {
    match case {
        HeaderCase::Preserve { capitals } => Some(Box::new(Names::of(head, capitals))),
        HeaderCase::Lower | HeaderCase::ProperCase => None,
    }
}

/// Changes the names of the lines behind the first: to what their sender wrote, else as the
/// connection's own format says.
pub fn rewrite(message: &mut [u8], names: Option<&Names>, case: HeaderCase) {
    let lines = message.split_mut(|byte| *byte == b'\n').skip(1);
    for line in lines {
        let end = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let name = &mut line[..end];
        match (names, case) {
            (Some(names), _) => names.apply(name),
            (None, HeaderCase::ProperCase) => capitals(name),
            (None, HeaderCase::Lower | HeaderCase::Preserve { .. }) => {}
        }
    }
}

/// Capitals at the beginning and behind all that is neither letter nor digit.
fn capitals(name: &mut [u8]) {
    let mut begins = true;
    for byte in name {
        if begins {
            byte.make_ascii_uppercase();
        }
        begins = !byte.is_ascii_alphanumeric();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(message: &str, from: Option<&str>, case: HeaderCase) -> String {
        let keep = HeaderCase::Preserve {
            capitals: case == HeaderCase::ProperCase,
        };
        let names = from.and_then(|from| kept(keep, from.as_bytes()));
        let mut message = message.as_bytes().to_vec();
        rewrite(&mut message, names.as_deref(), case);
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn capitals_begin_words() {
        let head =
            "get: /a:b HTTP/1.1\r\ncontent-type: a-b: c\r\nx_foo$b#$are: 1\r\nx-1st: \r\n\r\n";
        let want =
            "get: /a:b HTTP/1.1\r\nContent-Type: a-b: c\r\nX_Foo$B#$Are: 1\r\nX-1st: \r\n\r\n";
        assert_eq!(rewritten(head, None, HeaderCase::ProperCase), want);
        assert_eq!(rewritten(head, None, HeaderCase::Lower), head);
    }

    #[test]
    fn names_are_as_their_sender_wrote_them() {
        let came =
            "GET / HTTP/1.1\r\nHOST: h\r\nx-low: 1\r\nX-rEd: 1\r\nX-RED: 2\r\nToo-Long\r\n\r\n";
        let head =
            "GET / HTTP/1.1\r\nhost: h\r\nx-low: 1\r\nx-red: 1\r\nx-red: 2\r\nx-new: 1\r\n\r\n";
        let want =
            "GET / HTTP/1.1\r\nHOST: h\r\nx-low: 1\r\nX-rEd: 1\r\nX-rEd: 2\r\nx-new: 1\r\n\r\n";
        assert_eq!(rewritten(head, Some(came), HeaderCase::Lower), want);
        let want = want.replace("x-new", "X-New");
        assert_eq!(rewritten(head, Some(came), HeaderCase::ProperCase), want);
    }
}
