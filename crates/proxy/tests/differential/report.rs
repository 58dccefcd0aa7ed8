//! Compares the records and says what is wrong, line by line.

use super::case::Case;
use super::expand::Instance;
use super::run::Record;

/// What is wrong with a case, if anything.
pub fn judge(case: &Instance, theirs: &Record, ours: &Record, rows: &[String]) -> Option<String> {
    let (left, right) = (compared(&case.case, theirs), compared(&case.case, ours));
    let wrong = match &case.case.differs {
        None if left == right => return None,
        None => "differs".to_owned(),
        Some(row) if !rows.contains(row) => format!("no row {row:?} in docs/differences.md"),
        Some(_) if left == right => "agrees, though it has a `differs`".to_owned(),
        Some(_) => {
            let lacks = |words: &[String], lines: &[String], who: &str| {
                let all = lines.join("\n");
                let word = words.iter().find(|w| !all.contains(w.as_str()))?;
                Some(format!("{who} has no {word:?}"))
            };
            let ours = lacks(&case.case.ours, &right, "ours");
            ours.or_else(|| lacks(&case.case.envoys, &left, "Envoy's"))?
        }
    };
    Some(format!(
        "== {}: {wrong}\n{}",
        case.name,
        difference(&left, &right)
    ))
}

fn compared(case: &Case, record: &Record) -> Vec<String> {
    let parts = [
        ("client", &record.client),
        ("upstream", &record.upstream),
        ("log", &record.log),
    ];
    let kept = parts
        .into_iter()
        .filter(|(name, _)| !case.skip.iter().any(|s| s == name));
    kept.flat_map(|(_, lines)| lines.clone()).collect()
}

/// Both lists in one, by their longest common part.
pub fn difference(left: &[String], right: &[String]) -> String {
    let mut longest = vec![vec![0usize; right.len() + 1]; left.len() + 1];
    for l in (0..left.len()).rev() {
        for r in (0..right.len()).rev() {
            longest[l][r] = if left[l] == right[r] {
                longest[l + 1][r + 1] + 1
            } else {
                longest[l + 1][r].max(longest[l][r + 1])
            };
        }
    }
    let (mut l, mut r, mut out) = (0, 0, String::new());
    while l < left.len() || r < right.len() {
        let same = l < left.len() && r < right.len() && left[l] == right[r];
        let take_left =
            r == right.len() || (l < left.len() && longest[l + 1][r] >= longest[l][r + 1]);
        if same {
            out.push_str(&format!("        {}\n", left[l]));
            (l, r) = (l + 1, r + 1);
        } else if take_left {
            out.push_str(&format!("  envoy {}\n", left[l]));
            l += 1;
        } else {
            out.push_str(&format!("  ours  {}\n", right[r]));
            r += 1;
        }
    }
    out
}

/// A whole comparison, for those who write cases.
pub fn shown(case: &Instance, theirs: &Record, ours: &Record) -> String {
    let (left, right) = (compared(&case.case, theirs), compared(&case.case, ours));
    format!("-- {}\n{}", case.name, difference(&left, &right))
}
