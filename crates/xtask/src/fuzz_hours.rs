//! How long each fuzz target has been driven since it last broke: `fuzz/hours`, a line for each
//! target with its processor seconds. Processor time, because a target that waits for its turn on
//! a busy machine has tried nothing meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// What a target shall have run without a finding, in processor seconds.
pub const HOUR: u64 = 3600;

const HEAD: &str = "\
# Processor seconds that each target ran by coverage since it last broke; written by
# `cargo xtask fuzz`. The aim is an hour for each.
";

/// The seconds of each target that ever ran.
#[derive(Debug)]
pub struct Hours {
    file: PathBuf,
    seconds: BTreeMap<String, u64>,
}

impl Hours {
    /// Reads the file; one that is not there has no lines.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is not `TARGET SECONDS`.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let mut seconds = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(name), Some(Ok(ran)), None) =
                (words.next(), words.next().map(str::parse), words.next())
            else {
                bail!("{}:{}: a target and its seconds", file.display(), at + 1);
            };
            seconds.insert(name.to_owned(), ran);
        }
        Ok(Self {
            file: file.to_owned(),
            seconds,
        })
    }

    /// Processor seconds of a target since it last broke.
    #[must_use]
    pub fn of(&self, target: &str) -> u64 {
        self.seconds.get(target).copied().unwrap_or(0)
    }

    /// Notes a run, and begins anew where it broke something.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(&mut self, target: &str, ran: u64, broke: bool) -> anyhow::Result<()> {
        let total = if broke { 0 } else { self.of(target) + ran };
        self.seconds.insert(target.to_owned(), total);
        let mut text = HEAD.to_owned();
        for (name, seconds) in &self.seconds {
            text.push_str(&format!("{name} {seconds}\n"));
        }
        std::fs::write(&self.file, text).with_context(|| self.file.display().to_string())
    }

    /// Of these targets the one that has run least, where one lacks its hour.
    #[must_use]
    pub fn next<'a>(&self, targets: &[&'a str]) -> Option<&'a str> {
        let lacking = targets.iter().filter(|name| self.of(name) < HOUR);
        lacking.copied().min_by_key(|name| self.of(name))
    }

    /// A line for each target: its minutes, and whether its hour is full.
    #[must_use]
    pub fn table(&self, targets: &[&str]) -> String {
        let wide = targets.iter().map(|name| name.len()).max();
        let wide = wide.unwrap_or(0).max("TARGET".len());
        let mut lines = format!("{:wide$}  MINUTES  HOUR\n", "TARGET");
        for name in targets {
            let ran = self.of(name);
            let full = if ran < HOUR { "no" } else { "yes" };
            lines.push_str(&format!("{name:wide$}  {:>7}  {full}\n", ran / 60));
        }
        lines
    }
}

/// Processor seconds of the children that this process has waited for (proc_pid_stat(5): cutime
/// and cstime, in ticks of a hundredth of a second).
///
/// # Errors
/// No `/proc`.
pub fn children_seconds() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    // The second field, the program's name, is in parentheses and may hold spaces.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    match (ticks(13), ticks(14)) {
        (Some(user), Some(system)) => Ok((user + system) / 100.0),
        _ => bail!("/proc/self/stat has fewer fields than expected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_add_up_until_a_target_breaks() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("hours");
        let mut hours = Hours::read(&file).expect("none yet");
        hours.add("path", 3000, false).expect("written");
        hours.add("jwt", 10, false).expect("written");
        hours.add("path", 700, false).expect("written");
        let mut hours = Hours::read(&file).expect("what was written");
        assert_eq!((hours.of("path"), hours.of("jwt")), (3700, 10));
        assert_eq!(hours.next(&["path", "jwt"]), Some("jwt"));
        assert_eq!(hours.next(&["path"]), None);
        hours.add("path", 50, true).expect("written");
        assert_eq!(hours.next(&["path", "jwt"]), Some("path"));
        assert!(hours.table(&["jwt"]).ends_with("jwt           0  no\n"));
    }

    #[test]
    fn a_line_that_means_nothing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("hours");
        std::fs::write(&file, "# head\njwt ten\n").expect("written");
        let error = Hours::read(&file).expect_err("no number").to_string();
        assert!(error.contains("hours:2:"), "{error}");
    }

    #[test]
    fn a_child_that_computes_is_counted() {
        let before = children_seconds().expect("/proc");
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let ran = std::process::Command::new("sh").args(["-c", busy]).status();
        assert!(ran.expect("sh").success());
        assert!(children_seconds().expect("/proc") > before);
    }
}
