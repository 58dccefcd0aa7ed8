//! Answers of name servers to the proxy's questions: anyone near the network can send one.

use lateen_proxy_core::dns::{self, Answer, Family};

use crate::Target;

/// An answer to a fixed question.
pub const ANSWER: Target = Target {
    name: "dns_answer",
    run: answer,
    seeds: || {
        let record = |kind: u8, data: &[u8]| {
            let mut out = vec![0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8];
            out.extend_from_slice(data);
            out
        };
        let good = |flags: u8, records: &[Vec<u8>]| {
            let mut out = asked();
            out[2] = 0x81;
            out[3] = 0x80 | flags;
            out[7] = records.len() as u8;
            out.extend(records.concat());
            out
        };
        vec![
            good(0, &[record(1, &[10, 0, 0, 1]), record(1, &[10, 0, 0, 2])]),
            good(
                0,
                &[record(5, &[1, b'b', 0xc0, 12]), record(1, &[10, 0, 0, 1])],
            ),
            good(0, &[record(5, &[0xc0, 12])]),
            good(0, &[record(28, &[0; 16])]),
            good(3, &[]),
            good(2, &[]),
        ]
    },
    words: &["\u{0}\u{1}", "\u{0}\u{5}", "\u{1}a", "a.example"],
    rounds: 4000,
};

fn asked() -> Vec<u8> {
    dns::question(7, "a.example", Family::V4).unwrap_or_default()
}

fn answer(data: &[u8]) {
    let Ok(Answer::Addresses(found)) = dns::answer(&asked(), data) else {
        return;
    };
    // Every address is one of the message's records, and of the family that was asked for.
    assert!(found.len() * 16 <= data.len());
    assert!(
        found
            .iter()
            .all(|(ip, ttl)| ip.is_ipv4() && *ttl <= i32::MAX as u32)
    );
}
