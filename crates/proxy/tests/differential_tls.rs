//! TLS, listener filters and filter chains: the same hello, PROXY header and
//! client certificate to the real Envoy and to this proxy over the same
//! configuration. The cases are data in `differential_tls/cases` and work as
//! those of `differential`: LATEEN_ENVOY, LATEEN_CASES, LATEEN_SHOW.

#[path = "differential/mod.rs"]
#[expect(
    dead_code,
    reason = "the suite of HTTP cases lends its networks, its Envoy and its report"
)]
mod differential;
#[path = "differential_tls/mod.rs"]
mod differential_tls;
mod frames;
mod support;

use differential::{docs, envoy};
use differential_tls::{case, judge, run};

#[test]
fn tls_agrees_with_envoy_or_differs_on_purpose() {
    let wanted = std::env::var("LATEEN_CASES").unwrap_or_default();
    let suite = case::read_all(&wanted);
    assert!(
        !suite.cases.is_empty(),
        "no case has {wanted:?} in its name"
    );
    let Some(program) = envoy::find() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    let records = run::run(&program, &suite);
    let rows = docs::rows();
    let show = std::env::var_os("LATEEN_SHOW").is_some();
    let mut wrong = Vec::new();
    for (case, (theirs, ours)) in suite.cases.iter().zip(&records) {
        if show {
            let lines = differential::report::difference(theirs, ours);
            println!("-- {}\n{lines}", case.name);
        }
        wrong.extend(judge::judge(case, theirs, ours, &rows));
    }
    let on_purpose = suite.cases.iter().filter(|c| c.differs.is_some()).count();
    let count = suite.cases.len();
    println!("{count} cases, {on_purpose} differ on purpose");
    assert!(
        wrong.is_empty(),
        "{} of {count} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
