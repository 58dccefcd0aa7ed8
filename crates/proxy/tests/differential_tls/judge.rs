//! Compares the records of a case and says what is wrong, line by line.

use super::case::Case;
use crate::differential::report::difference;

/// What is wrong with a case, if anything.
pub fn judge(case: &Case, theirs: &[String], ours: &[String], rows: &[String]) -> Option<String> {
    let same = theirs == ours;
    let wrong = match &case.differs {
        None if same => return None,
        None => "differs".to_owned(),
        Some(row) if !rows.contains(row) => format!("no row {row:?} in docs/differences.md"),
        Some(_) if same => "agrees, though it has a `differs`".to_owned(),
        Some(_) => {
            let all = ours.join("\n");
            let word = case.ours.iter().find(|w| !all.contains(w.as_str()))?;
            format!("ours has no {word:?}")
        }
    };
    let lines = difference(theirs, ours);
    Some(format!("== {}: {wrong}\n{lines}", case.name))
}
