//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::contestant::ALL;
use crate::scenario::SCENARIOS;

/// What `--help` says.
pub const HELP: &str = "\
cargo xtask bench [OPTIONS]

Measures ours beside Envoy, HAProxy and nginx in interleaved rounds: proxies with one worker on
core 0, clients and backend on core 1. Prints tables and writes JSON.

  --only NAME[,NAME]   these scenarios (a beginning of a name is enough, `--list` names them)
  --peers NAME[,NAME]  these proxies: envoy, haproxy, nginx, lateen (the floor is always there)
  --rounds N           rounds of each measurement (5; 2 with --quick)
  --quick              fewer and shorter rounds, fewer idle connections: to see that all works
  --json FILE          where the JSON goes (target/bench.json); figures that are there, of the same
                       build and settings, and were not measured again stay
  --docs               write docs/bench.md from it: refused where a scenario is lacking, or with
                       --quick. A whole run takes up to 20 minutes
  --from-json          measure nothing, make the tables from the JSON that is there
  --program FILE       this build of lateen instead of a new one of the `dist` profile
  --commit NAME        what the build was made of, for the page (told by `cargo xtask`)
  --keep FOLDER        leave configurations, outputs and callgrind's files there
  --list               name the scenarios

A scenario whose floor (a loop that does nothing but the four system calls a proxied request needs)
spreads over 25 % is marked void: the machine was busy with something else.

Examples:
  cargo xtask bench --quick --only h1-100
  cargo xtask bench --only instructions --peers lateen
  cargo xtask bench --docs";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Scenarios by the beginning of their names; none means all.
    pub only: Vec<String>,
    /// Programs; none means all.
    pub peers: Vec<String>,
    /// Rounds of each measurement.
    pub rounds: usize,
    /// How long one measurement lasts.
    pub slice: Duration,
    /// Idle connections that memory is measured with.
    pub idle: usize,
    /// Shorter, less exact.
    pub quick: bool,
    /// Where the JSON goes.
    pub json: PathBuf,
    /// The page to write.
    pub docs: Option<PathBuf>,
    /// Nothing is measured.
    pub from_json: bool,
    /// Where the files of the run stay.
    pub keep: Option<PathBuf>,
    /// Only help or the list.
    pub say: Option<String>,
    /// What ours was built from.
    pub commit: String,
    /// Where programs are, told by `cargo xtask`.
    pub lateen: PathBuf,
    /// Envoy, where it is there.
    pub envoy: Option<PathBuf>,
}

impl Options {
    /// Reads the words.
    ///
    /// # Errors
    /// Why they make no sense.
    pub fn parse(args: &[String]) -> Result<Self, String> {
        let quick = args.iter().any(|word| word == "--quick");
        let mut options = Self {
            only: Vec::new(),
            peers: Vec::new(),
            rounds: if quick { 2 } else { 5 },
            slice: Duration::from_millis(if quick { 500 } else { 1500 }),
            idle: if quick { 500 } else { 4000 },
            quick,
            json: "target/bench.json".into(),
            docs: None,
            from_json: false,
            keep: None,
            say: None,
            commit: "not told".to_owned(),
            lateen: "target/dist/lateen".into(),
            envoy: None,
        };
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next().cloned();
                value.ok_or_else(|| format!("{word} wants a value"))
            };
            let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
            match word.as_str() {
                "--help" | "-h" => options.say = Some(HELP.to_owned()),
                "--list" => options.say = Some(listed()),
                "--quick" => {}
                "--from-json" => options.from_json = true,
                "--only" => options.only = list(value()?),
                "--peers" => options.peers = list(value()?),
                "--rounds" => {
                    let text = value()?;
                    let number = text.parse().ok().filter(|n| *n > 0);
                    options.rounds =
                        number.ok_or_else(|| format!("--rounds wants a number, not {text}"))?;
                }
                "--json" => options.json = value()?.into(),
                "--keep" => options.keep = Some(value()?.into()),
                "--docs" => options.docs = Some("docs/bench.md".into()),
                "--program" => options.lateen = value()?.into(),
                "--commit" => options.commit = value()?,
                "--envoy" => options.envoy = Some(value()?.into()),
                _ => return Err(format!("{word} has no meaning here")),
            }
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), String> {
        for name in &self.only {
            if !SCENARIOS.iter().any(|s| s.name.starts_with(name.as_str())) {
                return Err(format!("no scenario {name}\n{}", listed()));
            }
        }
        for name in &self.peers {
            if !ALL.iter().any(|contestant| contestant.name == name) {
                return Err(format!("no proxy {name}"));
            }
        }
        Ok(())
    }

    /// How exact the figures are; those of others do not stand beside them.
    pub fn settings(&self) -> String {
        let Self {
            rounds,
            slice,
            idle,
            quick,
            ..
        } = self;
        let word = if *quick { "quick: " } else { "" };
        format!("{word}{rounds} rounds of {slice:?}, {idle} idle connections")
    }

    /// Whether a scenario is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|start| name.starts_with(start.as_str()))
    }
}

fn listed() -> String {
    let lines = SCENARIOS
        .iter()
        .map(|s| format!("{:<14} {}", s.name, s.about));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Options::parse(&words)
    }

    #[test]
    fn words_are_read_and_wrong_ones_told() {
        let options = parse("--quick --only h1,tcp --peers envoy").expect("right");
        assert!(options.wants("h1-100") && options.wants("tcp") && !options.wants("memory"));
        assert_eq!(options.rounds, 2);
        assert_eq!(parse("--rounds 9").expect("right").rounds, 9);
        for wrong in [
            "--rounds 0",
            "--only nothing",
            "--peers caddy",
            "--json",
            "fast",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
