//! A scratch directory that is gone when the verb is over, and the rule by which anything left by a killed run is
//! known: its name carries the id of the process that made it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};

/// A directory of our own, removed on drop.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes `<temp>/<tag>-<our process id>` and removes those that dead processes left.
    pub(crate) fn new(tag: &str) -> Result<Self> {
        let temp = env::temp_dir();
        for entry in fs::read_dir(&temp).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name
                .to_str()
                .and_then(|name| name.strip_prefix(tag)?.strip_prefix('-'))
                .is_some_and(is_left_over)
            {
                // Somebody else's, if it cannot be removed; then it is none of our business.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = temp.join(format!("{tag}-{}", process::id()));
        fs::create_dir(&path)
            .with_context(|| format!("cannot create the scratch directory {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("warning: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Whether this process id, taken from the name of a thing, is of an xtask that runs no more.
pub(crate) fn is_left_over(id: &str) -> bool {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    // An id is used again after a while, so a living process must also be an xtask to own the thing.
    !fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == "xtask")
}

#[cfg(test)]
mod tests {
    use super::is_left_over;

    #[test]
    fn only_ids_of_dead_or_foreign_processes_are_left_over() {
        assert!(is_left_over("4194305"), "above the kernel's largest id");
        assert!(is_left_over("1"), "alive, but no xtask");
        assert!(!is_left_over(""));
        assert!(!is_left_over("12x"));
    }
}
