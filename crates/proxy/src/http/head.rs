//! A message head as bytes: lower-case header lines in one buffer, spans that
//! point into it, and edits that append new lines and unmark old ones, so that
//! an untouched run of lines is written to the other side as one copy.

mod plain;

pub use plain::{Place, Plain};

use std::cell::Cell;

use lateen_proxy_core::path::without_query;

use super::known::Known;
use crate::http1::case::Names;

/// A piece of a [`Head`]'s buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start as usize..(self.start + self.len) as usize]
    }
}

/// One header line; the line is `name: value\r\n` in the buffer.
#[derive(Clone, Copy, Debug)]
struct Field {
    start: u32,
    name_len: u16,
    known: Known,
    live: bool,
    value_len: u32,
}

impl Field {
    fn name(self, buf: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &buf[start..start + self.name_len as usize]
    }

    fn value_start(self) -> usize {
        self.start as usize + self.name_len as usize + 2
    }

    fn value(self, buf: &[u8]) -> &[u8] {
        let start = self.value_start();
        &buf[start..start + self.value_len as usize]
    }

    fn end(self) -> usize {
        self.value_start() + self.value_len as usize + 2
    }
}

/// A line that is made once and goes into many heads.
#[derive(Clone, Debug)]
pub struct Line {
    known: Known,
    /// `name: value\r\n`
    text: Box<[u8]>,
}

impl Line {
    /// A line of a well-known name.
    pub fn new(known: Known, value: &[u8]) -> Self {
        let text = [known.name().as_bytes(), b": ", value, b"\r\n"].concat();
        Self {
            known,
            text: text.into(),
        }
    }
}

/// Lines of a message of which a [`Head`] holds a copy.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// Where the lines lie themselves.
    from: usize,
    len: usize,
    /// Where the copy begins.
    place: usize,
}

impl Copied {
    /// Where the copy of a piece of the lines is.
    fn place_of(self, piece: &[u8]) -> Option<usize> {
        let at = piece.as_ptr().addr().checked_sub(self.from)?;
        (at + piece.len() <= self.len).then_some(self.place + at)
    }
}

/// The head of a request or a response. Header names are lower-case. A
/// request's `Host` is the authority, not a line. Reused between messages: no
/// allocation once its buffers have grown.
#[derive(Clone, Debug, Default)]
pub struct Head {
    buf: Vec<u8>,
    fields: Vec<Field>,
    present: u128,
    method: Span,
    path: Span,
    authority: Span,
    scheme: Span,
    /// The request line and that of the host as they came, line ends included, as long as what they
    /// say is so; empty else.
    came: [Span; 2],
    has_authority: bool,
    /// How long the path is without its query, once that was looked for.
    bare: Cell<Option<u32>>,
    /// How its sender wrote its names, where that is to be kept.
    names: Option<Box<Names>>,
    /// The status of a response; 0 in a request.
    pub status: u16,
}

impl Head {
    /// An empty head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.fields.clear();
        self.present = 0;
        self.method = Span::default();
        self.path = Span::default();
        self.authority = Span::default();
        self.scheme = Span::default();
        self.came = <[Span; 2]>::default();
        self.has_authority = false;
        self.bare.set(None);
        self.names = None;
        self.status = 0;
    }

    /// How its sender wrote its names, where that is to be kept.
    pub fn names(&self) -> Option<&Names> {
        self.names.as_deref()
    }

    /// Keeps how its sender wrote its names.
    pub fn set_names(&mut self, names: Option<Box<Names>>) {
        self.names = names;
    }

    /// Bytes of memory that the lines may take without asking for more.
    pub fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// True when nothing was put in.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty() && self.status == 0
    }

    /// Gives memory back when a large head went through.
    pub fn shrink(&mut self, keep: usize) {
        self.clear();
        self.buf.shrink_to(keep);
        self.fields.shrink_to(keep / 16);
    }

    fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.buf.len() as u32;
        self.buf.extend_from_slice(bytes);
        Span {
            start,
            len: bytes.len() as u32,
        }
    }

    /// The request method.
    pub fn method(&self) -> &[u8] {
        self.method.of(&self.buf)
    }

    /// The request target in origin form, query included.
    pub fn path(&self) -> &[u8] {
        self.path.of(&self.buf)
    }

    /// [`Head::path`] without its query.
    pub fn bare_path(&self) -> &[u8] {
        let path = self.path();
        let found = || without_query(path).len() as u32;
        let len = self.bare.get().unwrap_or_else(found);
        self.bare.set(Some(len));
        path.get(..len as usize).unwrap_or(path)
    }

    /// The `Host` or `:authority`, empty when there is none.
    pub fn authority(&self) -> &[u8] {
        self.authority.of(&self.buf)
    }

    /// Whether a `Host` or `:authority` was given at all.
    pub fn has_authority(&self) -> bool {
        self.has_authority
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &[u8] {
        self.scheme.of(&self.buf)
    }

    /// Replaces the method.
    pub fn set_method(&mut self, value: &[u8]) {
        self.came = <[Span; 2]>::default();
        self.method = self.push(value);
    }

    /// Replaces the path.
    pub fn set_path(&mut self, value: &[u8]) {
        self.bare.set(None);
        self.came = <[Span; 2]>::default();
        self.path = self.push(value);
    }

    /// Replaces the authority.
    pub fn set_authority(&mut self, value: &[u8]) {
        self.came = <[Span; 2]>::default();
        self.authority = self.push(value);
        self.has_authority = true;
    }

    /// Forgets the authority.
    pub fn remove_authority(&mut self) {
        self.came = <[Span; 2]>::default();
        self.authority = Span::default();
        self.has_authority = false;
    }

    /// Replaces the scheme.
    pub fn set_scheme(&mut self, value: &[u8]) {
        self.scheme = self.push(value);
    }

    /// Appends a line; the name is lowered here.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        self.add_pieces(name, &[value]);
    }

    /// Appends a line whose value is the pieces joined.
    pub fn add_pieces(&mut self, name: &[u8], pieces: &[&[u8]]) {
        let start = self.buf.len();
        self.buf.extend_from_slice(name);
        self.buf[start..].make_ascii_lowercase();
        let known = Known::of(&self.buf[start..]);
        self.end_line(start, known, pieces);
    }

    /// Appends a line whose name is in lower case and known to be that one.
    pub fn add_lower(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let start = self.buf.len();
        self.buf.extend_from_slice(name);
        self.buf.extend_from_slice(b": ");
        self.buf.extend_from_slice(value);
        self.buf.extend_from_slice(b"\r\n");
        self.push_field(known, start, name.len(), value.len());
    }

    /// Takes a line in that stands in the buffer.
    fn push_field(&mut self, known: Known, start: usize, name_len: usize, value_len: usize) {
        self.present |= known.bit();
        self.fields.push(Field {
            start: start as u32,
            name_len: name_len as u16,
            known,
            live: true,
            value_len: value_len as u32,
        });
    }

    /// Appends a line that was made before.
    pub fn add_line(&mut self, line: &Line) {
        let (start, name_len) = (self.buf.len(), line.known.name().len());
        self.buf.extend_from_slice(&line.text);
        self.push_field(line.known, start, name_len, line.text.len() - name_len - 4);
    }

    /// Puts a line that was made before in the place of the first of its name.
    pub fn set_line(&mut self, line: &Line) {
        if !self.has(line.known) {
            return self.add_line(line);
        }
        let first = self.remove_first(line.known);
        self.add_line(line);
        self.move_last(first);
    }

    /// Appends a line of a well-known name.
    pub fn add_known(&mut self, name: Known, value: &[u8]) {
        let (start, line) = (self.buf.len(), name.line());
        self.buf.extend_from_slice(line.as_bytes());
        self.buf.extend_from_slice(value);
        self.buf.extend_from_slice(b"\r\n");
        self.push_field(name, start, line.len() - 2, value.len());
    }

    /// Copies the lines of a message as they came. None of them is the head's until
    /// [`Head::keep`] says so.
    pub fn copy(&mut self, lines: &[u8]) -> Copied {
        let place = self.buf.len();
        self.buf.extend_from_slice(lines);
        Copied {
            from: lines.as_ptr().addr(),
            len: lines.len(),
            place,
        }
    }

    /// The number of a name among the copied lines; the copy is lowered.
    pub fn classify(&mut self, copied: Copied, name: &[u8]) -> Known {
        let Some(at) = copied.place_of(name) else {
            return Known::of(&name.to_ascii_lowercase());
        };
        let copy = &mut self.buf[at..at + name.len()];
        copy.make_ascii_lowercase();
        Known::of(copy)
    }

    /// Takes a copied line into the head. One that is not written as heads here are (one space
    /// before the value, none behind it) is written anew.
    pub fn keep(&mut self, copied: Copied, known: Known, name: &[u8], value: &[u8]) {
        let (Some(start), Some(at)) = (copied.place_of(name), copied.place_of(value)) else {
            return self.add(name, value);
        };
        let (name_end, end) = (start + name.len(), at + value.len());
        let plain = self.buf.get(name_end..at) == Some(b": ")
            && self.buf.get(end..end + 2) == Some(b"\r\n");
        if !plain {
            return self.add(name, value);
        }
        self.push_field(known, start, name.len(), value.len());
    }

    /// Ends the line whose name begins at `start`.
    fn end_line(&mut self, start: usize, known: Known, pieces: &[&[u8]]) {
        let name_len = self.buf.len() - start;
        self.buf.extend_from_slice(b": ");
        let value = self.buf.len();
        for piece in pieces {
            self.buf.extend_from_slice(piece);
        }
        let value_len = self.buf.len() - value;
        self.buf.extend_from_slice(b"\r\n");
        self.push_field(known, start, name_len, value_len);
    }

    /// Appends a line whose value is a number.
    pub fn add_number(&mut self, name: Known, value: u64) {
        let mut digits = itoa::Buffer::new();
        self.add_known(name, digits.format(value).as_bytes());
    }

    /// Replaces all lines of a well-known name by one with a number.
    pub fn set_number(&mut self, name: Known, value: u64) {
        let mut digits = itoa::Buffer::new();
        self.set_known(name, digits.format(value).as_bytes());
    }

    /// Replaces all lines of a well-known name by one in the place of the first.
    pub fn set_known(&mut self, name: Known, value: &[u8]) {
        if !self.has(name) {
            return self.add_known(name, value);
        }
        let first = self.remove_first(name);
        self.add_known(name, value);
        self.move_last(first);
    }

    /// Removes all lines of a well-known name; the place of the first.
    fn remove_first(&mut self, name: Known) -> Option<usize> {
        let mut first = None;
        for (at, field) in self.fields.iter_mut().enumerate() {
            if field.known == name && std::mem::take(&mut field.live) {
                first = first.or(Some(at));
            }
        }
        self.present &= !name.bit();
        first
    }

    /// Moves the last line to a place that a dead line has.
    fn move_last(&mut self, place: Option<usize>) {
        if let Some(place) = place
            && let Some(field) = self.fields.pop()
        {
            self.fields[place] = field;
        }
    }

    /// Appends to the last line of that name with the separator, or adds one.
    pub fn join_known(&mut self, name: Known, separator: &[u8], value: &[u8]) {
        let Some(index) = self.position(name) else {
            self.add_known(name, value);
            return;
        };
        let mut joined = Vec::with_capacity(128);
        joined.extend_from_slice(self.fields[index].value(&self.buf));
        joined.extend_from_slice(separator);
        joined.extend_from_slice(value);
        self.fields[index].live = false;
        self.add_known(name, &joined);
        self.move_last(Some(index));
    }

    fn position(&self, name: Known) -> Option<usize> {
        if !self.has(name) {
            return None;
        }
        self.fields.iter().rposition(|f| f.live && f.known == name)
    }

    /// Whether a line of that name may be present (exact unless removed).
    pub fn has(&self, name: Known) -> bool {
        self.present & name.bit() != 0
    }

    /// The first value of a well-known name.
    pub fn known(&self, name: Known) -> Option<&[u8]> {
        if !self.has(name) {
            return None;
        }
        self.fields
            .iter()
            .find(|f| f.live && f.known == name)
            .map(|f| f.value(&self.buf))
    }

    /// All values of a well-known name, in order.
    pub fn all_known(&self, name: Known) -> impl Iterator<Item = &[u8]> {
        let fields: &[Field] = if self.has(name) { &self.fields } else { &[] };
        fields
            .iter()
            .filter(move |f| f.live && f.known == name)
            .map(|f| f.value(&self.buf))
    }

    /// Removes all lines of a well-known name.
    pub fn remove_known(&mut self, name: Known) {
        self.remove_all(name.bit());
    }

    /// The first value of a name given in lower case; pseudo names (`:path`,
    /// `:method`, `:authority`, `:scheme`, `:status`) and `host` are known too.
    pub fn first(&self, name: &[u8]) -> Option<&[u8]> {
        if let Some(value) = self.pseudo(name) {
            return value;
        }
        let known = Known::of(name);
        if known != Known::Other {
            return self.known(known);
        }
        self.fields
            .iter()
            .find(|f| f.live && f.known == Known::Other && f.name(&self.buf) == name)
            .map(|f| f.value(&self.buf))
    }

    fn pseudo(&self, name: &[u8]) -> Option<Option<&[u8]>> {
        if !matches!(name.first(), Some(b':' | b'h')) {
            return None;
        }
        let some = |v: &'_ [u8]| !v.is_empty();
        Some(match name {
            b":method" => Some(self.method()).filter(|v| some(v)),
            b":path" => Some(self.path()).filter(|v| some(v)),
            b":scheme" => Some(self.scheme()).filter(|v| some(v)),
            b":authority" | b"host" if self.status == 0 => {
                self.has_authority.then(|| self.authority())
            }
            _ => return None,
        })
    }

    /// Calls `visit` with every value of a lower-case name until it says false.
    pub fn each(&self, name: &[u8], visit: &mut dyn FnMut(&[u8]) -> bool) {
        if let Some(value) = self.pseudo(name) {
            if let Some(value) = value {
                visit(value);
            }
            return;
        }
        let known = Known::of(name);
        if known != Known::Other && !self.has(known) {
            return;
        }
        for field in self.fields.iter().filter(|f| f.live && f.known == known) {
            let same = known != Known::Other || field.name(&self.buf) == name;
            if same && !visit(field.value(&self.buf)) {
                return;
            }
        }
    }

    /// Removes all lines of a name given in lower case.
    pub fn remove(&mut self, name: &[u8]) {
        let known = Known::of(name);
        if known != Known::Other {
            return self.remove_known(known);
        }
        for field in &mut self.fields {
            if field.known == Known::Other && field.name(&self.buf) == name {
                field.live = false;
            }
        }
    }

    /// Removes the lines that `drop` names, told name and value.
    pub fn remove_where(&mut self, mut drop: impl FnMut(&[u8], &[u8]) -> bool) {
        for field in self.fields.iter_mut().filter(|f| f.live) {
            if drop(field.name(&self.buf), field.value(&self.buf)) {
                field.live = false;
            }
        }
        self.present = self
            .fields
            .iter()
            .filter(|f| f.live)
            .fold(0, |mask, f| mask | f.known.bit());
    }

    /// Removes all lines of the names with these [`Known::bit`]s.
    pub fn remove_all(&mut self, bits: u128) {
        if self.present & bits == 0 {
            return;
        }
        for field in &mut self.fields {
            field.live &= field.known.bit() & bits == 0;
        }
        self.present &= !bits;
    }

    /// Replaces all lines of a name by one.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let known = Known::of(name);
        if known != Known::Other {
            return self.set_known(known, value);
        }
        self.remove(name);
        self.add(name, value);
    }

    /// Every live line in order.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .filter(|f| f.live)
            .map(|f| (f.name(&self.buf), f.value(&self.buf)))
    }

    /// Every live line in order, with the number of its name.
    pub fn known_lines(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        let live = self.fields.iter().filter(|f| f.live);
        live.map(|f| (f.known, f.name(&self.buf), f.value(&self.buf)))
    }

    /// How many live lines there are.
    pub fn len(&self) -> usize {
        self.fields.iter().filter(|f| f.live).count()
    }

    /// Writes the live lines, each ended by CRLF; untouched runs in one copy.
    pub fn write_lines(&self, out: &mut Vec<u8>) {
        self.write_from(0..0, out);
    }

    /// Writes the request line, the host and the live lines where the first two are as they came;
    /// else nothing is written.
    pub fn write_as_came(&self, out: &mut Vec<u8>) -> bool {
        let [line, host] = self
            .came
            .map(|s| s.start as usize..(s.start + s.len) as usize);
        if line.is_empty() || host.is_empty() {
            return false;
        }
        if line.end == host.start {
            self.write_from(line.start..host.end, out);
        } else {
            out.extend_from_slice(&self.buf[line]);
            self.write_from(host, out);
        }
        true
    }

    /// Writes a run of the buffer and the live lines.
    fn write_from(&self, mut run: std::ops::Range<usize>, out: &mut Vec<u8>) {
        for field in self.fields.iter().filter(|f| f.live) {
            let (start, end) = (field.start as usize, field.end());
            if start == run.end {
                run.end = end;
            } else {
                out.extend_from_slice(&self.buf[run]);
                run = start..end;
            }
        }
        out.extend_from_slice(&self.buf[run]);
    }

    /// All that a head says, for comparisons.
    #[cfg(test)]
    pub fn parts(&self) -> impl PartialEq + std::fmt::Debug {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let words = [self.method(), self.path(), self.authority(), self.scheme()];
        let lines = self.known_lines();
        let lines: Vec<_> = lines.map(|(k, n, v)| (k, text(n), text(v))).collect();
        (
            words.map(text),
            lines,
            self.present,
            self.has_authority,
            self.status,
        )
    }

    /// Bytes of the live lines as written, for size accounting.
    pub fn lines_size(&self) -> usize {
        self.fields
            .iter()
            .filter(|f| f.live)
            .map(|f| f.end() - f.start as usize)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(head: &Head) -> String {
        let mut out = Vec::new();
        head.write_lines(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn edits_keep_order_and_runs() {
        let mut head = Head::new();
        head.set_path(b"/a");
        head.add(b"User-Agent", b"curl");
        head.add(b"X-One", b"1");
        head.add(b"x-two", b"2");
        head.add(b"X-One", b"again");
        assert_eq!(
            written(&head),
            "user-agent: curl\r\nx-one: 1\r\nx-two: 2\r\nx-one: again\r\n"
        );
        head.remove(b"x-one");
        head.set_line(&Line::new(Known::Server, b"us"));
        head.set_line(&Line::new(Known::UserAgent, b"made"));
        assert_eq!(
            written(&head),
            "user-agent: made\r\nx-two: 2\r\nserver: us\r\n"
        );
        assert_eq!(head.known(Known::Server), Some(&b"us"[..]));
        head.remove_known(Known::Server);
        head.set_known(Known::UserAgent, b"other");
        assert_eq!(written(&head), "user-agent: other\r\nx-two: 2\r\n");
        assert_eq!(head.first(b"user-agent"), Some(&b"other"[..]));
        assert_eq!(head.first(b"x-one"), None);
        head.set_path(b"/longer");
        assert_eq!(head.path(), b"/longer");
        assert_eq!(head.len(), 2);
        assert_eq!(head.lines_size(), written(&head).len());
    }

    #[test]
    fn copied_lines_are_the_heads_once_they_are_kept() {
        let wire = b"User-Agent: curl\r\nHost: a\r\nX-One:1\r\nX-Two: 2 \r\nAccept: */*\r\n\r\n";
        let mut head = Head::new();
        head.set_path(b"/a");
        let copied = head.copy(wire);
        for line in wire.split(|b| *b == b'\n').filter(|line| line.len() > 1) {
            let colon = line.iter().position(|b| *b == b':').unwrap();
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let known = head.classify(copied, name);
            if known != Known::Host {
                head.keep(copied, known, name, value);
            }
        }
        let elsewhere = head.classify(copied, b"ACCEPT");
        assert_eq!(elsewhere, Known::Accept);
        head.keep(copied, elsewhere, b"ACCEPT", b"text/html");
        assert_eq!(
            written(&head),
            "user-agent: curl\r\nx-one: 1\r\nx-two: 2\r\naccept: */*\r\naccept: text/html\r\n"
        );
        assert!(head.has(Known::UserAgent) && !head.has(Known::Host));
    }

    #[test]
    fn each_sees_every_line_alone() {
        let mut head = Head::new();
        head.add(b"x-a", b"1");
        head.add(b"x-b", b"-");
        head.add(b"x-a", b"2");
        let mut seen = Vec::new();
        head.each(b"x-a", &mut |v| {
            seen.push(v.to_vec());
            true
        });
        assert_eq!(seen, vec![b"1".to_vec(), b"2".to_vec()]);
    }

    #[test]
    fn join_extends_the_last_line() {
        let mut head = Head::new();
        head.join_known(Known::XForwardedFor, b",", b"10.0.0.1");
        head.join_known(Known::XForwardedFor, b",", b"10.0.0.2");
        assert_eq!(written(&head), "x-forwarded-for: 10.0.0.1,10.0.0.2\r\n");
    }
}
