//! From case files to single cases: families spread out, texts made bytes.

use std::collections::BTreeMap;

use super::case::{Case, Config, File};
use super::script::{self, Step};
use super::tokens;
use crate::frames::script as framed;

/// One case ready to run.
pub struct Instance {
    /// Place in the run; its client's address says it.
    pub index: usize,
    /// The listener it runs on, with the clusters behind it. Cases of one
    /// configuration share a listener, one after another.
    pub slot: usize,
    /// `file/name` with the values of its family.
    pub name: String,
    /// Its configuration.
    pub config: Config,
    /// The case, with its values filled in.
    pub case: Case,
    /// What the client does.
    pub client: Vec<Step>,
    /// What it does on HTTP/2, in place of `client`.
    pub frames: Vec<framed::Step>,
}

impl Instance {
    /// The name a cluster has behind this listener.
    pub fn cluster(&self, name: &str) -> String {
        format!("{name}-{:04}", self.slot)
    }

    /// The clusters: `up`, then the others by name.
    pub fn clusters(&self) -> Vec<String> {
        let others = self.config.clusters.keys().filter(|k| *k != "up");
        std::iter::once("up".to_owned())
            .chain(others.cloned())
            .collect()
    }
}

/// Spreads the files out to single cases whose names contain `wanted`.
pub fn expand(files: Vec<(String, File)>, wanted: &str) -> Vec<Instance> {
    let mut configs: BTreeMap<String, Config> = BTreeMap::new();
    for (file, content) in &files {
        for (name, config) in &content.configs {
            let old = configs.insert(name.clone(), config.clone());
            assert!(old.is_none(), "{file}: a second configuration {name}");
        }
    }
    let specs = files.iter().flat_map(|(_, file)| &file.tokens);
    let made: BTreeMap<String, String> = specs
        .map(|(name, spec)| (format!("${{token:{name}}}"), tokens::token(spec)))
        .collect();
    let mut all: Vec<Instance> = Vec::new();
    let mut slots = Slots::default();
    for (file, content) in &files {
        for case in &content.cases {
            for (suffix, mut case) in family(case) {
                let name = format!("{file}/{}{suffix}", case.name);
                if !name.contains(wanted) {
                    continue;
                }
                for (mark, token) in &made {
                    fill(&mut case, mark, token);
                }
                let named = case.config.as_ref().or(content.config.as_ref());
                let named = named.map_or("plain", String::as_str);
                let config = configs.get(named);
                let config = config.unwrap_or_else(|| panic!("{name}: no configuration {named}"));
                let place = (all.len() + 1, slots.next(named));
                all.push(instance(place, name, config.clone(), case));
            }
        }
    }
    let mut names: Vec<&str> = all.iter().map(|i| i.name.as_str()).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1], "two cases of one name");
    }
    all
}

/// Most cases that share a listener.
const MOST_OF_A_SLOT: usize = 12;

/// Deals listeners out.
#[derive(Default)]
struct Slots {
    /// By configuration: the newest listener and its cases.
    newest: BTreeMap<String, (usize, usize)>,
    count: usize,
}

impl Slots {
    fn next(&mut self, config: &str) -> usize {
        let entry = self.newest.entry(config.to_owned()).or_default();
        if entry.1 == 0 || entry.1 == MOST_OF_A_SLOT {
            self.count += 1;
            *entry = (self.count, 0);
        }
        entry.1 += 1;
        entry.0
    }
}

fn instance((index, slot): (usize, usize), name: String, config: Config, case: Case) -> Instance {
    let texts = match (&case.send, &case.head, &case.get, &case.frames) {
        (Some(steps), None, None, None) | (None, None, None, Some(steps)) => steps.list(),
        (None, Some(head), None, None) => {
            let head: String = head.lines().map(|line| format!("{line}\r\n")).collect();
            vec![format!("{head}\r\n{}", case.body)]
        }
        (None, None, Some(path), None) => vec![format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")],
        _ => panic!("{name}: one of send, head, get and frames"),
    };
    assert_eq!(
        case.differs.is_some(),
        !case.ours.is_empty(),
        "{name}: differs needs ours, and ours differs"
    );
    let mut made = Instance {
        index,
        slot,
        name,
        config,
        case,
        client: Vec::new(),
        frames: Vec::new(),
    };
    let named = made.clusters().into_iter();
    let named: Vec<_> = named
        .map(|c| (format!("${{{c}}}"), made.cluster(&c)))
        .collect();
    let fill = |text: &String| {
        named
            .iter()
            .fold(text.clone(), |text, (from, to)| text.replace(from, to))
    };
    let texts: Vec<String> = texts.iter().map(fill).collect();
    match made.case.frames {
        Some(_) => made.frames = framed::steps(&texts),
        None => made.client = script::steps(&texts),
    }
    made
}

/// The cases of a family, with what to add to the name.
fn family(case: &Case) -> Vec<(String, Case)> {
    let mut all = vec![(String::new(), case.clone())];
    for (key, values) in &case.each {
        let pattern = &format!("<{key}>");
        all = all
            .iter()
            .flat_map(|(suffix, case)| {
                values.iter().map(move |value| {
                    let shown: String = value.escape_default().take(40).collect();
                    (format!("{suffix} [{shown}]"), filled(case, pattern, value))
                })
            })
            .collect();
    }
    // Two long values may share their first characters.
    for (at, (suffix, _)) in all.iter_mut().enumerate() {
        if !suffix.is_empty() {
            suffix.push_str(&format!("#{}", at + 1));
        }
    }
    all
}

fn filled(case: &Case, pattern: &str, value: &str) -> Case {
    let mut case = case.clone();
    fill(&mut case, pattern, value);
    case
}

/// Replaces a pattern in all texts of a case.
fn fill(case: &mut Case, pattern: &str, value: &str) {
    let fill = |text: &mut String| {
        if text.contains(pattern) {
            *text = text.replace(pattern, value);
        }
    };
    [
        &mut case.head,
        &mut case.get,
        &mut case.config,
        &mut case.under,
    ]
    .into_iter()
    .flatten()
    .for_each(fill);
    fill(&mut case.body);
    case.send.iter_mut().for_each(|s| s.each(fill));
    case.frames.iter_mut().for_each(|s| s.each(fill));
    case.upstream.each(fill);
    case.serves.iter_mut().for_each(|s| s.each(fill));
    case.ours.iter_mut().for_each(fill);
    case.envoys.iter_mut().for_each(fill);
}
