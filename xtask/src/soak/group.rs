//! A control group of our own that bounds the memory of what runs in it, of version 1 or 2, whichever has the controller here.
//!
//! The kernel charges it for a process's memory, for pages of files that it writes, and (since Linux 5.11) for its BPF maps. It is
//! removed on drop; what was left by a killed run is removed when the next one starts.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::temp::is_left_over;

/// Our groups are `<tag><process id>`.
const TAG: &str = "clovisor-soak-";
/// How often a group is tried to be removed: its processes have ended, and the kernel is given a moment to see that.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// The files of a version: of the bound, of what is charged, of the most that was, and of kills for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files {
    bound: &'static str,
    charged: &'static str,
    most: &'static str,
    events: &'static str,
}

/// cgroups(7); Documentation/admin-guide/cgroup-v1/memory.rst.
const V1: Files = Files {
    bound: "memory.limit_in_bytes",
    charged: "memory.usage_in_bytes",
    most: "memory.max_usage_in_bytes",
    events: "memory.oom_control",
};
/// Documentation/admin-guide/cgroup-v2.rst; `memory.peak` since Linux 5.19.
const V2: Files =
    Files { bound: "memory.max", charged: "memory.current", most: "memory.peak", events: "memory.events" };

/// A control group with bounded memory.
pub(crate) struct Group {
    path: PathBuf,
    files: Files,
}

impl Group {
    /// Makes one that may hold so many bytes.
    pub(crate) fn new(bytes: u64) -> Result<Self> {
        let (hierarchy, files) = hierarchy()?;
        for entry in fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_str().and_then(|name| name.strip_prefix(TAG)).is_some_and(is_left_over) {
                remove(&entry.path());
            }
        }
        let path = hierarchy.join(format!("{TAG}{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make the control group {}", path.display()))?;
        let this = Self { path, files };
        fs::write(this.path.join(files.bound), bytes.to_string())
            .with_context(|| format!("cannot bound the memory of {}", this.path.display()))?;
        Ok(this)
    }

    /// The same command, run within the group: a shell goes there first and then becomes the program.
    pub(crate) fn hold(&self, command: &Command) -> Command {
        let mut held = Command::new("sh");
        held.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.path.join("cgroup.procs"));
        held.arg(command.get_program()).args(command.get_args());
        held
    }

    /// Bytes that are charged now.
    pub(crate) fn charged(&self) -> Result<u64> {
        self.number(self.files.charged)
    }

    /// Bytes that were charged at most; what is charged now where the kernel keeps no such count.
    pub(crate) fn most(&self) -> Result<u64> {
        self.number(self.files.most).or_else(|_| self.charged())
    }

    /// Processes that were killed for want of memory.
    pub(crate) fn kills(&self) -> Result<u64> {
        let text = self.read(self.files.events)?;
        kills(&text).with_context(|| format!("{} does not say oom_kill", self.files.events))
    }

    /// What its bytes are of, by the kernel's names.
    pub(crate) fn parts(&self) -> Result<Value> {
        let text = self.read("memory.stat")?;
        Ok(text.lines().filter_map(|line| line.split_once(' ')).filter_map(part).collect())
    }

    fn number(&self, file: &str) -> Result<u64> {
        self.read(file)?.trim().parse().with_context(|| format!("{file} of {}", self.path.display()))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &std::path::Path) {
    for _ in 0..TRIES {
        if fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        thread::sleep(BETWEEN_TRIES);
    }
    eprintln!("warning: cannot remove the control group {}", path.display());
}

/// Where groups with a bound of memory can be made.
fn hierarchy() -> Result<(PathBuf, Files)> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    // In version 2 it is for the files at the root to say which controllers groups below it have.
    let is_v2 = |path: &str| {
        let controllers = fs::read_to_string(format!("{path}/cgroup.subtree_control")).unwrap_or_default();
        controllers.split_whitespace().any(|name| name == "memory")
    };
    find(&mounts, is_v2).context("no control groups with a controller of memory here")
}

fn find(mounts: &str, is_v2: impl Fn(&str) -> bool) -> Option<(PathBuf, Files)> {
    mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, path, "cgroup", options, ..] if options.split(',').any(|one| one == "memory") => {
            Some((path.into(), V1))
        }
        [_, path, "cgroup2", ..] if is_v2(path) => Some((path.into(), V2)),
        _ => None,
    })
}

fn kills(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn part((name, bytes): (&str, &str)) -> Option<(String, Value)> {
    Some((name.to_owned(), bytes.trim().parse::<u64>().ok()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_found_in_either_version() {
        let v1 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        assert_eq!(find(v1, |_| false), Some(("/sys/fs/cgroup/memory".into(), V1)));
        let v2 = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(find(v2, |path| path == "/sys/fs/cgroup"), Some(("/sys/fs/cgroup".into(), V2)));
        assert_eq!(find(v2, |_| false), None);
    }

    #[test]
    fn kills_are_told_by_both_versions() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(kills("low 0\nhigh 0\nmax 12\noom 4\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\n"), None);
    }
}
