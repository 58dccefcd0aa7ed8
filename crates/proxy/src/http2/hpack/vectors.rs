//! The examples of RFC 7541 appendix C, and what any split of a block must give.

use super::*;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, HpackError> {
    let mut fields = Vec::new();
    let used = decoder.decode(block, true, |n, v| fields.push((n.to_vec(), v.to_vec())))?;
    assert_eq!(used, block.len());
    Ok(fields)
}

fn expect(decoder: &mut Decoder, hex: &str, fields: &[(&str, &str)], size: usize) {
    let wanted: Fields = fields
        .iter()
        .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
        .collect();
    assert_eq!(decode(decoder, &bytes(hex)).unwrap(), wanted);
    assert_eq!(decoder.table_size(), size);
}

#[test]
fn single_fields() {
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    expect(
        &mut Decoder::new(4096),
        custom,
        &[("custom-key", "custom-header")],
        55,
    );
    let path = "040c 2f73 616d 706c 652f 7061 7468";
    expect(
        &mut Decoder::new(4096),
        path,
        &[(":path", "/sample/path")],
        0,
    );
    let secret = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    expect(
        &mut Decoder::new(4096),
        secret,
        &[("password", "secret")],
        0,
    );
    expect(&mut Decoder::new(4096), "82", &[(":method", "GET")], 0);
}

#[test]
fn requests() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new(4096);
        let host = (":authority", "www.example.com");
        let get = (":method", "GET");
        let http = (":scheme", "http");
        expect(
            &mut decoder,
            blocks[0],
            &[get, http, (":path", "/"), host],
            57,
        );
        let no_cache = ("cache-control", "no-cache");
        expect(
            &mut decoder,
            blocks[1],
            &[get, http, (":path", "/"), host, no_cache],
            110,
        );
        let third = [
            get,
            (":scheme", "https"),
            (":path", "/index.html"),
            host,
            ("custom-key", "custom-value"),
        ];
        expect(&mut decoder, blocks[2], &third, 164);
    }
}

#[test]
fn responses_with_eviction() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a \
         3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 \
         677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 \
         553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e \
         919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 \
         821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed \
         4ee5 b106 3d50 07",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new(256);
        let private = ("cache-control", "private");
        let date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
        let location = ("location", "https://www.example.com");
        expect(
            &mut decoder,
            blocks[0],
            &[(":status", "302"), private, date, location],
            222,
        );
        expect(
            &mut decoder,
            blocks[1],
            &[(":status", "307"), private, date, location],
            222,
        );
        let third = [
            (":status", "200"),
            private,
            ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
            location,
            ("content-encoding", "gzip"),
            (
                "set-cookie",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ];
        expect(&mut decoder, blocks[2], &third, 215);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let fails = |hex: &str| decode(&mut Decoder::new(4096), &bytes(hex)).unwrap_err();
    assert_eq!(fails("80"), HpackError::Index);
    assert_eq!(fails("be"), HpackError::Index);
    assert_eq!(fails("7f 80"), HpackError::Truncated);
    assert_eq!(fails("ff ff ff ff ff ff"), HpackError::Integer);
    assert_eq!(fails("04 05 2f"), HpackError::Truncated);
    assert_eq!(fails("04 81 00"), HpackError::Huffman);
    assert_eq!(fails("3f e2 1f"), HpackError::Size); // 4097
    assert_eq!(fails("82 20"), HpackError::Size); // after a field
    assert!(decode(&mut Decoder::new(4096), &bytes("3f e1 1f 20 82")).is_ok());
}

#[test]
fn any_cut_gives_the_same_fields() {
    let block = bytes(
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff 400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f \
         6d2d 6865 6164 6572 be",
    );
    let whole = decode(&mut Decoder::new(4096), &block).unwrap();
    for cut in 0..=block.len() {
        let mut decoder = Decoder::new(4096);
        let mut fields = Vec::new();
        let mut keep = |n: &[u8], v: &[u8]| fields.push((n.to_vec(), v.to_vec()));
        let used = decoder.decode(&block[..cut], false, &mut keep).unwrap();
        assert!(used <= cut);
        decoder.decode(&block[used..], true, &mut keep).unwrap();
        assert_eq!(fields, whole, "cut at {cut}");
    }
}

proptest::proptest! {
    #[test]
    fn what_is_written_reads_back(
        fields in proptest::collection::vec(("[a-z-]{1,40}", "[ -~]{0,200}"), 0..20)
    ) {
        let mut block = Vec::new();
        begin_table(&mut block);
        for (name, value) in &fields {
            write_field(&mut block, name.as_bytes(), value.as_bytes());
        }
        let read = decode(&mut Decoder::new(4096), &block).unwrap();
        let same = read.iter().zip(&fields).all(|(r, w)| r.0 == w.0.as_bytes() && r.1 == w.1.as_bytes());
        proptest::prop_assert!(same && read.len() == fields.len());
    }

    #[test]
    fn no_bytes_break_the_decoder(blocks in proptest::collection::vec(
        proptest::collection::vec(proptest::num::u8::ANY, 0..60), 1..5)
    ) {
        let mut decoder = Decoder::new(200);
        for block in blocks {
            if decoder.decode(&block, true, |_, _| ()).is_err() {
                break;
            }
            proptest::prop_assert!(decoder.table_size() <= 200);
        }
    }
}
