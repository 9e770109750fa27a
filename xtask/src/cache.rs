//! The cache outside the tree: what had to be fetched or built once, each entry in a folder keyed by its version.
//!
//! An entry is built beside its place and then renamed into it, so an interrupted install is never mistaken for a
//! finished one. One process at a time installs one entry; the others wait for it and then find it there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

pub(crate) use crate::toolchain::cache_dir as dir;

/// The log of an install.
pub(crate) fn log(name: &str) -> PathBuf {
    dir().join("logs").join(format!("{name}.log"))
}

/// Held while an entry is installed; the kernel frees it when its process ends in whatever way.
pub(crate) struct Lock {
    _file: File,
}

/// Waits until nobody else installs `name`.
pub(crate) fn lock(name: &str) -> Result<Lock> {
    lock_for(name, &format!("waiting for another process that installs {name} …"))
}

/// Waits until nobody else holds `name`; says so if it has to.
pub(crate) fn lock_for(name: &str, waiting: &str) -> Result<Lock> {
    let path = dir().join("locks").join(name);
    let open = || -> std::io::Result<File> {
        fs::create_dir_all(dir().join("locks"))?;
        let file = File::create(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            eprintln!("{waiting}");
            flock(&file, FlockOperation::LockExclusive)?;
        }
        Ok(file)
    };
    let file = open().with_context(|| format!("cannot lock {} (is the cache writable?)", path.display()))?;
    Ok(Lock { _file: file })
}

/// Makes the entry `name`: `build` fills a fresh folder, which then becomes the entry. Whoever finds it made by
/// then (`is_there`) does nothing.
pub(crate) fn install(
    name: &str,
    is_there: impl Fn() -> bool,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let _lock = lock(name)?;
    if is_there() {
        return Ok(());
    }
    let (unfinished, place) = (dir().join(format!(".unfinished-{name}")), dir().join(name));
    // Under the lock both can only be what an interrupted or broken install left.
    for stale in [&unfinished, &place] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    fs::create_dir_all(&unfinished).with_context(|| format!("cannot create {}", unfinished.display()))?;
    build(&unfinished)?;
    fs::rename(&unfinished, &place).with_context(|| format!("cannot put {} in its place", place.display()))
}
