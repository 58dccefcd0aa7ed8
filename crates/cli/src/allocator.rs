//! The program's allocator, and how it is asked to give back what is free: it keeps freed pages for
//! what comes next, and in a process that has come to rest nothing does.
#![allow(
    unsafe_code,
    reason = "a call of the allocator's own that its crate does not wrap"
)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    /// mimalloc's: collects what the calling thread and ended threads freed; with `force` the pages
    /// go back to the system at once.
    fn mi_collect(force: bool);
}

/// Gives back what is free in the calling thread's heap and in no thread's.
pub fn give_back() {
    // SAFETY: the function is in the library that `ALLOCATOR` links, with this signature; it takes
    // no pointer, and may be called by any thread at any time.
    unsafe { mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib() -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let row = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = row.and_then(|row| row.split_whitespace().next()).unwrap();
        number.parse().unwrap()
    }

    #[test]
    fn what_was_freed_goes_back_to_the_system() {
        let before = resident_kib();
        let blocks: Vec<Vec<u8>> = (0..128 * 1024).map(|_| vec![1; 1024]).collect();
        let during = resident_kib();
        assert!(during > before + 100 * 1024, "{before} {during}");
        drop(blocks);
        give_back();
        let after = resident_kib();
        assert!(after < before + 64 * 1024, "{before} {during} {after}");
    }
}
