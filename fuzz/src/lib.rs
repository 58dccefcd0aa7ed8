//! A fuzz target for each parser of foreign bytes: a function from bytes that panics when the
//! parser does, or when what it says breaks a rule. The same table is replayed and mutated by the
//! tests of this crate and driven by libFuzzer (`cargo xtask fuzz`).

pub mod bytes;
pub mod mutate;
pub mod runtime;
pub mod targets;

pub use targets::TARGETS;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also that of its folder below `fuzz/corpus/`.
    pub name: &'static str,
    /// Panics when the parser under it is wrong about these bytes.
    pub run: fn(&[u8]),
    /// Good and nearly good inputs to begin with; the corpus folder holds more.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the language, put in by mutation.
    pub words: &'static [&'static str],
    /// Mutated inputs of one test run in a debug build.
    pub rounds: u32,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The target of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}
