//! The rows of docs/differences.md, which `differs` names.

/// First cells of all tables.
pub fn rows() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/differences.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cell = line.strip_prefix("| ")?.split(" | ").next()?;
        Some(cell.trim().to_owned())
    });
    rows.filter(|cell| cell != "what").collect()
}
