//! Header fields as bytes: by the static table and as literals that enter no
//! table, so that there is no state to keep, to bound or to attack.

use super::integer;
use super::table::STATIC;
use crate::http::known::{ALL, Known};

/// Indexes of the static table that stand for a name, by the name's length.
struct Names {
    /// First place in `order` of names of a length.
    begin: [u8; LONGEST + 2],
    order: [u8; 61],
}

/// Longest name of the static table.
const LONGEST: usize = 27;

static NAMES: Names = names();

const fn names() -> Names {
    let mut names = Names {
        begin: [0; LONGEST + 2],
        order: [0; 61],
    };
    let (mut length, mut at) = (0, 0);
    while length <= LONGEST {
        names.begin[length] = at as u8;
        let mut index = 0;
        while index < STATIC.len() {
            if STATIC[index].0.len() == length {
                names.order[at] = index as u8;
                at += 1;
            }
            index += 1;
        }
        length += 1;
    }
    names.begin[LONGEST + 1] = at as u8;
    names
}

/// By [`Known`], the index of its name in the static table; 0 = it is not there.
static OF_KNOWN: [u8; 128] = of_known();

const fn of_known() -> [u8; 128] {
    let mut of_known = [0; 128];
    let mut at = 0;
    while at < ALL.len() {
        let mut index = STATIC.len();
        // From the end, so that the first of several stays.
        while index > 0 {
            index -= 1;
            if same(STATIC[index].0, ALL[at].name().as_bytes()) {
                of_known[ALL[at] as usize] = index as u8 + 1;
            }
        }
        at += 1;
    }
    of_known
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// The index of a name in the static table.
fn index_of(name: &[u8]) -> Option<usize> {
    if name.len() > LONGEST {
        return None;
    }
    let (from, to) = (NAMES.begin[name.len()], NAMES.begin[name.len() + 1]);
    let same = |index: &&u8| STATIC[usize::from(**index)].0 == name;
    let found = NAMES.order[usize::from(from)..usize::from(to)]
        .iter()
        .find(same);
    found.map(|index| usize::from(*index) + 1)
}

/// Appends what tells the peer's decoder that its table stays empty
/// (section 6.3); sent once, in front of the first block.
pub fn begin_table(out: &mut Vec<u8>) {
    integer::write(out, 0x20, 5, 0);
}

/// Appends a field of the static table.
pub fn write_indexed(out: &mut Vec<u8>, index: usize) {
    integer::write(out, 0x80, 7, index);
}

/// Appends a field whose name has that index.
pub fn write_named(out: &mut Vec<u8>, index: usize, value: &[u8]) {
    integer::write(out, 0, 4, index);
    string(out, value);
}

/// Appends a field. Secrets are marked as never to be put into a table
/// (section 7.1.3).
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let secret = matches!(
        name,
        b"authorization" | b"proxy-authorization" | b"cookie" | b"set-cookie"
    );
    let first = if secret { 0x10 } else { 0 };
    match index_of(name) {
        Some(index) => integer::write(out, first, 4, index),
        None => {
            out.push(first);
            string(out, name);
        }
    }
    string(out, value);
}

/// Appends a field whose name has that number, as [`write_field`] would.
pub fn write_known(out: &mut Vec<u8>, known: Known, name: &[u8], value: &[u8]) {
    let secret = matches!(
        known,
        Known::Authorization | Known::Cookie | Known::SetCookie
    );
    let first = if secret { 0x10 } else { 0 };
    match OF_KNOWN[known as usize] {
        0 => write_field(out, name, value),
        index => {
            integer::write(out, first, 4, usize::from(index));
            string(out, value);
        }
    }
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer::write(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_number_is_written_as_without() {
        for known in ALL {
            let name = known.name().as_bytes();
            let (mut by_number, mut by_name) = (Vec::new(), Vec::new());
            write_known(&mut by_number, known, name, b"value");
            write_field(&mut by_name, name, b"value");
            assert_eq!(by_number, by_name, "{}", known.name());
        }
    }

    #[test]
    fn every_static_name_is_found() {
        for (at, (name, _)) in STATIC.iter().enumerate() {
            let index = index_of(name).unwrap();
            assert!(index <= at + 1);
            assert_eq!(STATIC[index - 1].0, *name);
        }
        for name in [&b""[..], b"x", b"contenttype", &[b'a'; 27], &[b'a'; 100]] {
            assert_eq!(index_of(name), None);
        }
    }
}
