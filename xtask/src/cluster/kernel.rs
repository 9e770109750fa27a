//! What a cluster cannot have for itself and must share with the machine: control groups and settings of the kernel.
//!
//! Control groups are made below one of ours and removed with it. Settings are never changed: what the kubelet
//! wants to find is shown to it by mounts of its own.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Settings below `/proc/sys` that the kubelet would change for the whole machine (its `setupKernelTunables`).
pub(super) const KUBELET_WANTS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1\n"),
    ("vm/panic_on_oom", "0\n"),
    ("kernel/panic", "10\n"),
    ("kernel/panic_on_oops", "1\n"),
    ("kernel/keys/root_maxkeys", "1000000\n"),
    ("kernel/keys/root_maxbytes", "25000000\n"),
];

/// Makes a control group in every hierarchy, of version 1 or 2.
pub(super) fn make_cgroups(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let path = hierarchy.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make the control group {}", path.display()))?;
    }
    Ok(())
}

/// Removes control groups that are chosen by name, with all below them. Their processes have been killed, and are
/// given a moment to go.
pub(super) fn remove_cgroups(chosen: impl Fn(&str) -> bool) {
    for hierarchy in hierarchies().unwrap_or_default() {
        for entry in fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(&chosen) {
                let deadline = Instant::now() + Duration::from_secs(5);
                while let Err(error) = remove_tree(&entry.path()) {
                    if Instant::now() > deadline {
                        eprintln!("warning: cannot remove {}: {error}", entry.path().display());
                        break;
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
}

/// The files of a control group go with its directory, which is why the usual removal of a tree does not do.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields
        .filter(|mount| matches!(mount[..], [_, _, "cgroup" | "cgroup2", ..]))
        .map(|mount| mount[1].into())
        .collect())
}
