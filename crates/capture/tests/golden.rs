//! Every case of `tests/golden`: `NAME.flags` (one line) gives `NAME.iptables` and `NAME.nft`.
//! `BLESS=1 cargo test -p lateen-capture --test golden` writes what the code gives now.

use std::fs;
use std::path::Path;

use lateen_capture::flags::{Action, parse};
use lateen_capture::rules::{System, build};
use lateen_capture::{iptables, nft};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace()
        .map(|word| {
            if word == "''" {
                String::new()
            } else {
                word.to_owned()
            }
        })
        .collect()
}

#[test]
fn flags_give_these_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("BLESS").is_some();
    let system = System {
        ipv6: false,
        nameservers: vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()],
    };
    let (mut cases, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_none_or(|extension| extension != "flags")
        {
            continue;
        }
        cases += 1;
        let args = words(&fs::read_to_string(&path).unwrap());
        let Action::Run(config) = parse(&args, &|_| None).unwrap() else {
            panic!("{}: help", path.display());
        };
        let sets = build(&config, &system);
        let texts = [
            (
                "iptables",
                sets.iter().map(iptables::text).collect::<String>(),
            ),
            ("nft", sets.iter().map(nft::text).collect::<String>()),
        ];
        for (extension, text) in texts {
            let golden = path.with_extension(extension);
            if bless {
                fs::write(&golden, &text).unwrap();
            } else if fs::read_to_string(&golden).unwrap_or_default() != text {
                wrong.push(format!("{}:\n{text}", golden.display()));
            }
        }
    }
    assert!(cases >= 8, "the cases are there");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
