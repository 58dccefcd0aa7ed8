//! The form of resource quantities: a number, then a decimal, binary or exponent suffix.

/// What is said of a text that does not have the form.
pub(super) const WRONG_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const WRONG_SUFFIX: &str = "unable to parse quantity's suffix";

/// What is wrong with a quantity, if something is.
pub(super) fn problem(text: &str) -> Option<&'static str> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = unsigned.trim_start_matches(|c: char| c.is_ascii_digit());
    let fraction = whole.strip_prefix('.').unwrap_or(whole);
    let suffix = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = unsigned.len() - suffix.len();
    if digits == 0 || &unsigned[..digits] == "." {
        return Some(WRONG_FORMAT);
    }
    let tail = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = tail.strip_prefix(['+', '-']).unwrap_or(tail);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Some(WRONG_FORMAT);
    }
    let known = matches!(
        suffix,
        "" | "n"
            | "u"
            | "m"
            | "k"
            | "M"
            | "G"
            | "T"
            | "P"
            | "E"
            | "Ki"
            | "Mi"
            | "Gi"
            | "Ti"
            | "Pi"
            | "Ei"
    );
    let scientific = || {
        let power = suffix.strip_prefix(['e', 'E']);
        power.is_some_and(|p| p.parse::<i32>().is_ok())
    };
    (!known && !scientific()).then_some(WRONG_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_a_number_and_a_known_suffix() {
        for good in [
            "0", "1", "+1", "-1.5", ".5", "1.", "100m", "128Mi", "1e3", "1E-3", "1E", "2Ei", "0.1k",
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
        for bad in [
            "", "lots", "m", ".", "1.2.3", "5Zi", "1 Mi", "1Mi ", "--1", "1e3x",
        ] {
            assert_eq!(problem(bad), Some(WRONG_FORMAT), "{bad}");
        }
        for bad in ["1Kim", "1ki", "1mm", "1e", "1K"] {
            assert_eq!(problem(bad), Some(WRONG_SUFFIX), "{bad}");
        }
    }
}
