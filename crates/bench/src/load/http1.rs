//! The HTTP/1 sides of the driver: finds the end of an answer, and of a request without a body.

use memchr::memmem;

/// Reads answers with a `Content-Length`, one at a time.
#[derive(Debug, Default)]
pub struct Answers {
    head: Vec<u8>,
    /// Bytes of the body that are still to come.
    left: Option<usize>,
}

impl Answers {
    /// Takes what came; true when the answer is whole.
    ///
    /// # Errors
    /// The head of an answer that is no 200 with a length.
    pub fn feed(&mut self, data: &[u8]) -> Result<bool, String> {
        if let Some(left) = self.left {
            return Ok(self.body(left, data.len()));
        }
        if self.head.is_empty() {
            return self.head(data);
        }
        let mut head = std::mem::take(&mut self.head);
        head.extend_from_slice(data);
        self.head(&head)
    }

    fn head(&mut self, data: &[u8]) -> Result<bool, String> {
        let Some(end) = memmem::find(data, b"\r\n\r\n") else {
            self.head = data.to_vec();
            return Ok(false);
        };
        let head = data.get(..end).unwrap_or_default();
        let wrong = || format!("an answer that is none: {}", head.escape_ascii());
        if head.get(8..12) != Some(b" 200") {
            return Err(wrong());
        }
        let length = length(head).ok_or_else(wrong)?;
        Ok(self.body(length, data.len() - end - 4))
    }

    fn body(&mut self, left: usize, came: usize) -> bool {
        let left = left.saturating_sub(came);
        self.left = (left > 0).then_some(left);
        left == 0
    }
}

/// The value of `Content-Length`, whatever the letters' case.
fn length(head: &[u8]) -> Option<usize> {
    let name = b"content-length:";
    let lines = head.split(|byte| *byte == b'\n');
    let mut values = lines.filter_map(|line| {
        let (start, rest) = line.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then_some(rest)
    });
    std::str::from_utf8(values.next()?)
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Counts the ends of heads in a stream of requests without bodies.
#[derive(Debug, Default)]
pub struct Requests {
    /// How much of the end was seen at the end of what came before.
    matched: usize,
}

impl Requests {
    /// How many requests became whole with this.
    pub fn feed(&mut self, data: &[u8]) -> usize {
        const END: &[u8] = b"\r\n\r\n";
        let mut count = 0;
        let mut rest = data;
        while self.matched > 0 && !rest.is_empty() {
            let (first, after) = rest.split_at(1);
            if END.get(self.matched) == first.first() {
                self.matched += 1;
                rest = after;
                if self.matched == END.len() {
                    count += 1;
                    self.matched = 0;
                }
            } else if first == b"\r" && self.matched == 3 {
                // "\r\n\r\r": the last may begin anew.
                self.matched = 1;
                rest = after;
            } else {
                self.matched = 0;
            }
        }
        while let Some(at) = memmem::find(rest, END) {
            count += 1;
            rest = rest.get(at + END.len()..).unwrap_or_default();
        }
        let open = (1..END.len()).rev().find(|n| rest.ends_with(&END[..*n]));
        self.matched = open.unwrap_or(self.matched);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_found_however_it_is_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        for cut in 0..=text.len() {
            let (before, after) = text.split_at(cut);
            let mut requests = Requests::default();
            let count = requests.feed(before) + requests.feed(after);
            assert_eq!(count, 2, "cut at {cut}");
        }
        let mut bytewise = Requests::default();
        let count: usize = text.chunks(1).map(|byte| bytewise.feed(byte)).sum();
        assert_eq!(count, 2);
    }

    #[test]
    fn an_answer_is_found_however_it_is_cut() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nx: y\r\n\r\nhello";
        for cut in 1..text.len() {
            let (before, after) = text.split_at(cut);
            let mut answers = Answers::default();
            assert_eq!(answers.feed(before), Ok(false), "cut at {cut}");
            assert_eq!(answers.feed(after), Ok(true), "cut at {cut}");
        }
        assert!(Answers::default().feed(b"HTTP/1.1 503 No\r\n\r\n").is_err());
    }
}
