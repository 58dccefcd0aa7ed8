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

use differential::{case, docs, envoy, expand, report, run};

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
