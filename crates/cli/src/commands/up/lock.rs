//! One `up` a home: a file that is locked as long as the process lives and names its pid.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::exit::{FAILED, Failure};

/// Held for the life of an `up`.
pub struct Lock {
    _file: Flock<File>,
}

fn open(home: &Path) -> std::io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(home.join("lock"))
}

/// Takes the lock, or says who has it.
pub fn take(home: &Path) -> anyhow::Result<Lock> {
    std::fs::create_dir_all(home).map_err(|error| {
        Failure::new(FAILED, format!("making {}: {error}", home.display()))
            .hint("name another folder with the variable LATEEN_HOME")
    })?;
    let file = open(home)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(std::process::id().to_string().as_bytes())?;
            Ok(Lock { _file: file })
        }
        Err((mut file, _)) => {
            let pid = pid(&mut file).map_or_else(String::new, |pid| format!(" (pid {pid})"));
            Err(Failure::new(FAILED, format!("`lateen up` is running already{pid}"))
                .hint("use it (`export KUBECONFIG=$(lateen kubeconfig)`), or stop it with `lateen down`")
                .into())
        }
    }
}

/// The pid of the running `up` of a home; `None` when none runs.
///
/// # Errors
/// The home is another user's.
pub fn holder(home: &Path) -> anyhow::Result<Option<i32>> {
    let file = match open(home) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let why = format!("{} is another user's: {error}", home.display());
            return Err(Failure::new(FAILED, why)
                .hint("ask as the user who started it, or with sudo")
                .into());
        }
        Err(_) => return Ok(None),
    };
    Ok(match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => None,
        Err((mut file, _)) => pid(&mut file),
    })
}

fn pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_has_it() {
        let home = std::env::temp_dir().join(format!("lateen-lock-{}", std::process::id()));
        let lock = take(&home).expect("the first takes it");
        let error = take(&home).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            error.contains(&format!("pid {}", std::process::id())),
            "{error}"
        );
        let own = i32::try_from(std::process::id()).ok();
        assert_eq!(holder(&home).expect("our home"), own);
        drop(lock);
        assert_eq!(holder(&home).expect("our home"), None);
        std::fs::remove_dir_all(home).expect("removed");
    }
}
