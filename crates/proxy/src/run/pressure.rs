//! Where pressures are read: the process's memory, its control group's, a file that says one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use lateen_proxy_core::config::bootstrap::PressureSource;

/// Usage and limit of a control group's memory, of its second version and of its first.
const CGROUPS: [[&str; 2]; 2] = [
    ["memory.current", "memory.max"],
    [
        "memory/memory.usage_in_bytes",
        "memory/memory.limit_in_bytes",
    ],
];
/// Where control groups are mounted; a container sees its own there.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// No file read here is longer.
const MOST: usize = 256;

/// Where a pressure is read.
pub(super) enum Source {
    Heap { most: u64, file: Kept },
    Cgroup { most: Option<u64>, root: PathBuf },
    Injected(PathBuf),
}

/// A file that stays open once it could be opened: the kernel makes its text anew for each reading.
pub(super) struct Kept {
    path: &'static str,
    file: Option<File>,
}

impl Kept {
    fn read(&mut self) -> io::Result<String> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(self.path)?,
        };
        let text = read(&file)?;
        self.file = Some(file);
        Ok(text)
    }
}

/// What a short file says.
fn read(file: &File) -> io::Result<String> {
    let mut text = [0; MOST];
    let count = file.read_at(&mut text, 0)?;
    Ok(String::from_utf8_lossy(&text[..count]).into_owned())
}

fn read_path(path: &Path) -> Result<String, String> {
    let text = File::open(path).and_then(|file| read(&file));
    text.map_err(|error| format!("{}: {error}", path.display()))
}

/// Bytes of the process's own: resident pages without those of files and of shared memory. It is
/// what Envoy's heap is when what was given back is taken off; the kernel keeps both numbers.
fn anonymous(statm: &str) -> Option<u64> {
    let mut pages = statm
        .split(' ')
        .skip(1)
        .map(|n| n.trim().parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared) * 4096)
}

fn cgroup(root: &Path, most: Option<u64>) -> Result<f64, String> {
    let version = CGROUPS.iter().find(|[usage, _]| root.join(usage).exists());
    let Some([usage, limit]) = version else {
        return Err(format!(
            "no control group with memory below {}",
            root.display()
        ));
    };
    let number = |name: &str| -> Result<Option<u64>, String> {
        let text = read_path(&root.join(name))?;
        match text.trim() {
            "max" => Ok(None),
            number => Ok(Some(
                number.parse().map_err(|_| format!("{name} is no number"))?,
            )),
        }
    };
    let used = number(usage)?.ok_or_else(|| format!("{usage} is no number"))?;
    let limit = match (number(limit)?, most) {
        (Some(limit), Some(most)) => Some(limit.min(most)),
        (limit, most) => limit.or(most),
    };
    Ok(limit.map_or(0.0, |limit| used as f64 / limit.max(1) as f64))
}

fn injected(text: &str) -> Option<f64> {
    let number = text.trim().parse::<f64>().ok();
    number.filter(|n| (0.0..=1.0).contains(n))
}

impl Source {
    /// Nothing is read yet.
    pub(super) fn new(source: &PressureSource) -> Self {
        match source {
            PressureSource::FixedHeap(most) => Self::Heap {
                most: *most,
                file: Kept {
                    path: "/proc/self/statm",
                    file: None,
                },
            },
            PressureSource::CgroupMemory(most) => Self::Cgroup {
                most: *most,
                root: CGROUP_ROOT.into(),
            },
            PressureSource::Injected(path) => Self::Injected(PathBuf::from(&**path)),
        }
    }

    /// The pressure now; 1 = all that may be is taken.
    ///
    /// # Errors
    /// What cannot be read or is no pressure.
    pub(super) fn read(&mut self) -> Result<f64, String> {
        match self {
            Self::Heap { most, file } => {
                let text = file.read().map_err(|e| format!("{}: {e}", file.path))?;
                let used = anonymous(&text).ok_or("statm has no pages")?;
                Ok(used as f64 / *most as f64)
            }
            Self::Cgroup { most, root } => cgroup(root, *most),
            Self::Injected(path) => {
                let text = read_path(path)?;
                injected(&text)
                    .ok_or_else(|| format!("{} has no number from 0 to 1", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_counted_as_it_is_taken_and_given_back() {
        assert_eq!(anonymous("1000 300 100 5 0 80 0\n"), Some(200 * 4096));
        assert_eq!(anonymous("1000 300"), None);
        let most = 1 << 30;
        let mut source = Source::new(&PressureSource::FixedHeap(most));
        let before = source.read().unwrap();
        let taken = vec![1_u8; 256 << 20];
        let during = source.read().unwrap();
        assert!(during > before + 0.2, "{before} {during}");
        drop(std::hint::black_box(taken));
        // Other tests of this process may hold some by now.
        let after = source.read().unwrap();
        assert!(after < during - 0.1, "{before} {during} {after}");
    }

    #[test]
    fn a_control_group_has_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(cgroup(root, None).is_err());
        let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        std::fs::create_dir(root.join("memory")).unwrap();
        write("memory/memory.usage_in_bytes", "50\n");
        write("memory/memory.limit_in_bytes", "200\n");
        assert_eq!(cgroup(root, None), Ok(0.25));
        write("memory.current", "60\n");
        write("memory.max", "max\n");
        assert_eq!(cgroup(root, None), Ok(0.0));
        assert_eq!(cgroup(root, Some(120)), Ok(0.5));
        write("memory.max", "80\n");
        assert_eq!(cgroup(root, Some(120)), Ok(0.75));
        assert_eq!(cgroup(root, Some(60)), Ok(1.0));
        write("memory.current", "many\n");
        assert!(cgroup(root, None).is_err());
    }

    /// What the real Envoy 1.40 takes and refuses, but for `nan`, which it takes for much.
    #[test]
    fn a_file_says_a_number() {
        for (text, want) in [("0.4", 0.4), ("1", 1.0), (" 0.5 \n", 0.5), ("1e-1", 0.1)] {
            assert_eq!(injected(text), Some(want), "{text:?}");
        }
        for text in ["1.5", "-0.1", "x", "", "nan", "inf"] {
            assert_eq!(injected(text), None, "{text:?}");
        }
    }
}
