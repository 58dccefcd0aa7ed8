//! Gives back what a process only needed to begin: the pages of its program's read-only parts.
//! The kernel maps them anew, 16 pages at a time, when code runs again, so what stays counted as
//! resident is what works. The only file of the crate with unsafe code.
#![allow(
    unsafe_code,
    reason = "madvise over the program's own read-only segments"
)]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::OnceLock;

/// Unmaps the program's code and constants until they are next used. Costs the caller some hundred
/// minor faults afterwards, no reads of the disk while the file is in the page cache. Returns how
/// many bytes were offered, 0 where the system refuses.
pub fn release_program_pages() -> usize {
    let released = segments().iter().map(|segment| {
        // SAFETY: the range is whole pages of a segment that the program's headers call read-only.
        // Such pages are private mappings of the file that nothing has written to (relocated data
        // stands in a writable segment), so the kernel reads the same bytes again on the next use.
        let code = unsafe {
            libc::madvise(
                segment.start as *mut c_void,
                segment.len(),
                libc::MADV_DONTNEED,
            )
        };
        if code == 0 { segment.len() } else { 0 }
    });
    released.sum()
}

static HEAP: OnceLock<fn()> = OnceLock::new();

/// Says how the program's allocator is asked to give back what is free. The first word holds.
pub fn set_heap_release(release: fn()) {
    let _ = HEAP.set(release);
}

/// Has the allocator give back what is free in the calling thread's heap: for a thread that has come
/// to rest after much work. Does nothing where the program did not say how.
pub fn release_heap() {
    if let Some(release) = HEAP.get() {
        release();
    }
}

/// Whole pages of the program's segments without a write flag, found once.
fn segments() -> &'static [Range<usize>] {
    static SEGMENTS: OnceLock<Vec<Range<usize>>> = OnceLock::new();
    SEGMENTS.get_or_init(|| {
        let mut found: Vec<Range<usize>> = Vec::new();
        // SAFETY: `first` gets the pointer to `found`, which outlives the call, and uses it for
        // nothing else; the linker holds its list still while the call lasts.
        unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut found).cast()) };
        found
    })
}

/// Reads the first object's headers, which are the program's, and ends the walk.
///
/// # Safety
/// `info` and `found` are the linker's entry and `segments`' vector.
unsafe extern "C" fn first(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    found: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise; neither is used after the return.
    let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Range<usize>>>()) };
    if info.dlpi_phdr.is_null() {
        return 1;
    }
    let count = usize::from(info.dlpi_phnum);
    // SAFETY: the linker's entry points to as many headers as it says, mapped with the program.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count) };
    let page = page_size();
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        // A segment's size and place are those of this process's own address space.
        let start = info.dlpi_addr as usize + header.p_vaddr as usize;
        let end = start + header.p_memsz as usize;
        // Inwards: a page shared with a neighbour stays.
        let whole = start.next_multiple_of(page)..end / page * page;
        if whole.start < whole.end {
            found.push(whole);
        }
    }
    1
}

fn page_size() -> usize {
    // SAFETY: asks for a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident bytes of the mappings that hold `segments`, in KiB.
    fn resident() -> u64 {
        let text = std::fs::read_to_string("/proc/self/smaps").expect("readable");
        let (mut inside, mut sum) = (false, 0);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let head = words.next().unwrap_or_default();
            if let Some((start, _)) = head.split_once('-') {
                let start = usize::from_str_radix(start, 16).expect("an address");
                inside = segments().iter().any(|segment| {
                    // The mapping may begin up to a page before the whole pages of its segment.
                    segment.start.abs_diff(start) < page_size() || segment.contains(&start)
                });
            } else if inside && head == "Rss:" {
                sum += words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
            }
        }
        sum
    }

    #[test]
    fn the_program_runs_on_without_its_pages() {
        static CONSTANT: [u64; 4096] = [7; 4096];
        assert!(segments().len() > 1, "code and constants: {:?}", segments());
        let before = resident();
        let offered = release_program_pages();
        let after = resident();
        assert!(offered > 0);
        assert!(after < before, "{before} KiB before, {after} KiB after");
        // Constants and code read as before.
        assert_eq!(CONSTANT.iter().sum::<u64>(), 7 * 4096);
        assert_eq!(format!("{:?}", [1, 2].map(|n| n + 1)), "[2, 3]");
    }
}
