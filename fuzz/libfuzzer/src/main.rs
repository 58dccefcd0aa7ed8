//! The fuzz targets under libFuzzer. `--target=NAME` picks one; `--write=FOLDER` writes its seeds
//! and its dictionary there and ends. libFuzzer leaves words that begin with `--` alone.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use lateen_fuzz::{Target, bytes};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let target = argument("--target=").unwrap_or_default();
        let Some(target) = lateen_fuzz::find(&target) else {
            let names: Vec<&str> = lateen_fuzz::TARGETS.iter().map(|t| t.name).collect();
            eprintln!("--target= wants one of: {}", names.join(" "));
            std::process::exit(64);
        };
        if let Some(folder) = argument("--write=") {
            match write(target, Path::new(&folder)) {
                Ok(()) => std::process::exit(0),
                Err(error) => {
                    eprintln!("{folder}: {error}");
                    std::process::exit(1);
                }
            }
        }
        TARGET.get_or_init(|| target);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);

fn argument(name: &str) -> Option<String> {
    std::env::args().find_map(|word| word.strip_prefix(name).map(str::to_owned))
}

fn write(target: &Target, folder: &Path) -> std::io::Result<()> {
    let seeds = folder.join("seeds");
    std::fs::create_dir_all(&seeds)?;
    for seed in (target.seeds)() {
        std::fs::write(seeds.join(format!("{:016x}", bytes::hash(&seed))), seed)?;
    }
    let mut words = String::new();
    for word in target.words {
        let escaped: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        words.push_str(&format!("\"{escaped}\"\n"));
    }
    std::fs::write(folder.join("words"), words)
}
