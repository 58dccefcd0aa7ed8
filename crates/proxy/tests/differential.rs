//! The same bytes to the real Envoy and to this proxy over the same
//! configuration: answers, what the upstream saw and access-log lines must
//! agree, or differ where docs/differences.md says so. The cases are data in
//! `differential/cases`. Envoy is found by LATEEN_ENVOY or on PATH; without it
//! the test says SKIPPED. LATEEN_CASES runs the cases whose names contain it,
//! LATEEN_SHOW prints what both did.

#[path = "differential/mod.rs"]
mod differential;
mod frames;
mod support;

use std::path::Path;

use differential::{case, docs, envoy, expand, random, report, run};

/// The seed of the cases by chance, and how many of them every test run makes. LATEEN_SEED and
/// LATEEN_PROPERTY_CASES change them.
const SEED: u64 = 1;
const RANDOM_CASES: usize = 240;

#[test]
fn cases_agree_with_envoy_or_differ_on_purpose() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/cases");
    let wanted = std::env::var("LATEEN_CASES").unwrap_or_default();
    let cases = expand::expand(case::read_all(&folder), &wanted);
    assert!(!cases.is_empty(), "no case has {wanted:?} in its name");
    let Some(program) = envoy::find() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    let records = run::run(&program, &cases);
    let rows = docs::rows();
    let show = std::env::var_os("LATEEN_SHOW").is_some();
    let mut wrong = Vec::new();
    for (case, (theirs, ours)) in cases.iter().zip(&records) {
        if show {
            println!("{}", report::shown(case, theirs, ours));
        }
        wrong.extend(report::judge(case, theirs, ours, &rows));
    }
    let on_purpose = cases.iter().filter(|c| c.case.differs.is_some()).count();
    println!("{} cases, {on_purpose} differ on purpose", cases.len());
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn cases_by_chance_agree_with_envoy() {
    let given = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seed = given("LATEEN_SEED").unwrap_or(SEED);
    let count = given("LATEEN_PROPERTY_CASES").map_or(RANDOM_CASES, |n| n as usize);
    let wanted = std::env::var("LATEEN_CASES").unwrap_or_default();
    let (file, configs) = random::cases(seed, count);
    let files = vec![("random".to_owned(), file)];
    let cases = expand::expand(files, &wanted);
    let Some(program) = envoy::find() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    if cases.is_empty() {
        return;
    }
    let records = run::run(&program, &cases);
    let mut wrong = Vec::new();
    for (case, (theirs, ours)) in cases.iter().zip(&records) {
        let sent = case.case.send.as_ref().map(case::Steps::list);
        let told = report::judge(case, theirs, ours, &[]);
        let config = case.case.config.as_ref().map(|name| &configs[name]);
        wrong.extend(told.map(|t| {
            format!(
                "{t}{sent:?}\n{}\n",
                config.map_or(String::new(), ToString::to_string)
            )
        }));
    }
    println!("{} cases by chance, seed {seed}", cases.len());
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
