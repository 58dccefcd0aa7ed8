//! How long a message's body is, and what its head may say of it. Edits, rewrites and
//! authorisation services may write any header; where a body ends is decided by what came. The
//! rule is applied once, where a head leaves.
use crate::headers::HeadersMut;
use crate::known::Known;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// Nothing.
    Empty,
    /// So many bytes.
    Known(u64),
    /// Bytes up to an end that is told behind them.
    Unknown,
    /// No body, but the head may say how long that of another answer is: an answer to HEAD, a 304
    /// (RFC 9110 section 8.6).
    Elsewhere,
}

/// Fields of the connection that an answer never bears; an answer that leaves HTTP says to what.
const OF_CONNECTION: u128 = Known::bits(&[
    Known::Connection,
    Known::Upgrade,
    Known::ProxyConnection,
    Known::TransferEncoding,
]);

/// A request's host is its authority, and chunks are said to be such by who makes them.
const OF_REQUEST: u128 = Known::bits(&[Known::Host, Known::TransferEncoding]);

impl BodyLength {
    /// The length that a head which came tells, where there is a body.
    #[must_use]
    pub fn told(content_length: Option<&[u8]>) -> Self {
        content_length
            .and_then(number)
            .map_or(Self::Unknown, Self::Known)
    }

    /// Makes the head of a request tell the truth.
    pub fn settle_request<H: HeadersMut + ?Sized>(self, head: &mut H) {
        head.remove_all(OF_REQUEST);
        self.settle_length(head);
    }

    /// Makes the head of an answer tell the truth. `leaves`: both sides leave HTTP with it.
    pub fn settle_response<H: HeadersMut + ?Sized>(self, head: &mut H, leaves: bool) {
        head.remove_all(match leaves {
            true => Known::TransferEncoding.bit(),
            false => OF_CONNECTION,
        });
        self.settle_length(head);
    }

    /// At most one `content-length`, which is that of the body. None stays none: the body goes in
    /// chunks then.
    fn settle_length<H: HeadersMut + ?Sized>(self, head: &mut H) {
        let name = Known::ContentLength;
        let Some(first) = head.known(name) else {
            return;
        };
        let said = number(first);
        let right = match self {
            Self::Known(length) => said == Some(length),
            Self::Empty => said == Some(0),
            Self::Elsewhere => said.is_some(),
            Self::Unknown => false,
        };
        if right && head.count(name) == 1 {
            return;
        }
        match (self, said) {
            (Self::Known(length), _)
            | (Self::Empty, Some(length @ 0))
            | (Self::Elsewhere, Some(length)) => {
                head.set_known(name, length.to_string().as_bytes());
            }
            _ => head.remove_known(name),
        }
    }
}

/// Digits alone (RFC 9110 section 8.6).
fn number(text: &[u8]) -> Option<u64> {
    let add = |sum: u64, byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    };
    let sum = text.iter().try_fold(0, add);
    sum.filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::HeaderList;

    #[test]
    fn one_length_and_it_is_true() {
        use BodyLength as B;
        for (body, said, left) in [
            (B::Known(3), &["3"][..], "3"),
            (B::Known(3), &["3", "3"], "3"),
            (B::Known(3), &["3", "1"], "3"),
            (B::Known(3), &["1"], "3"),
            (B::Known(3), &["+3"], "3"),
            (B::Known(3), &["3,3"], "3"),
            (B::Known(3), &[], ""),
            (B::Empty, &["0"], "0"),
            (B::Empty, &["1"], ""),
            (B::Empty, &["0", "1"], "0"),
            (B::Unknown, &["1"], ""),
            (B::Elsewhere, &["9"], "9"),
            (B::Elsewhere, &["9", "8"], "9"),
            (B::Elsewhere, &["x"], ""),
            (B::Elsewhere, &["99999999999999999999"], ""),
        ] {
            let lines = said.iter().map(|v| ("content-length", *v));
            let list = HeaderList::of(&lines.collect::<Vec<_>>());
            let (mut request, mut answer) = (list.clone(), list);
            body.settle_request(&mut request);
            body.settle_response(&mut answer, false);
            assert_eq!(request.show("content-length"), left, "{body:?} {said:?}");
            assert_eq!(answer.show("content-length"), left, "{body:?} {said:?}");
        }
        assert_eq!(B::told(Some(b"12")), B::Known(12));
        assert_eq!(B::told(Some(b"1x")), B::Unknown);
        assert_eq!(B::told(None), B::Unknown);
    }

    #[test]
    fn fields_of_the_connection() {
        let all = [
            ("connection", "close"),
            ("upgrade", "h2c"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("host", "h"),
            ("x", "1"),
        ];
        let names = |list: HeaderList| {
            let names: Vec<_> = list.0.into_iter().map(|(name, _)| name).collect();
            names.join(" ")
        };
        let of = |settle: fn(&mut HeaderList)| {
            let mut list = HeaderList::of(&all);
            settle(&mut list);
            names(list)
        };
        let request = of(|list| BodyLength::Unknown.settle_request(list));
        assert_eq!(request, "connection upgrade proxy-connection x");
        let answer = of(|list| BodyLength::Unknown.settle_response(list, false));
        assert_eq!(answer, "host x");
        let leaves = of(|list| BodyLength::Empty.settle_response(list, true));
        assert_eq!(leaves, "connection upgrade proxy-connection host x");
    }
}
