//! How much memory the control group of this process allows (cgroups(7)), of version 1 or 2.
//!
//! It refuses to fail: where nothing can be read, there is no limit that could be heeded.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where control groups are mounted, by systemd's and every container's convention.
const ROOT: &str = "/sys/fs/cgroup";

/// Bytes that the control group of this process and those above it allow, if any of them sets a limit.
pub(crate) fn memory_limit() -> Option<u64> {
    let read = |file: &Path| fs::read_to_string(file).ok();
    memory_limit_of(&read(Path::new("/proc/self/cgroup"))?, read)
}

/// The same of a process with this `/proc/PID/cgroup`: a line `ID:CONTROLLERS:PATH` a hierarchy, the controllers empty in version 2.
fn memory_limit_of(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (hierarchy, file) = match controllers {
            "" => (PathBuf::from(ROOT), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (Path::new(ROOT).join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // In a container the path may be one of the node, and its own group is the root here.
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        groups.filter_map(|group| limit(&read(&hierarchy.join(group).join(file))?)).min()
    });
    limits.min()
}

/// The limit that a file says. Version 2 says `max` where there is none, version 1 a number that no machine has.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit of a process in these groups, by these files below the root.
    fn limit_of(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        memory_limit_of(groups, |file| {
            let file = file.strip_prefix(ROOT).ok()?.to_str()?;
            files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_least_on_the_way_up_counts() {
        let files = [
            ("memory.max", "max\n"),
            ("pods/memory.max", "300\n"),
            ("pods/a/memory.max", "200\n"),
            ("pods/a/b/memory.max", "max\n"),
            ("pods/c/memory.max", "400\n"),
        ];
        for (path, expected) in [
            ("/", None),
            ("/pods/a", Some(200)),
            ("/pods/a/b", Some(200)),
            ("/pods/c", Some(300)),
            ("/elsewhere", None),
            ("/pods/gone", Some(300)),
        ] {
            assert_eq!(limit_of(&format!("0::{path}\n"), &files), expected, "{path}");
        }
    }

    #[test]
    fn the_root_of_a_container_is_its_group() {
        for path in ["/", "/kubepods.slice/pod", "/../../kubepods.slice/pod"] {
            let limit = limit_of(&format!("0::{path}\n"), &[("memory.max", "67108864\n")]);
            assert_eq!(limit, Some(64 << 20), "{path}");
        }
    }

    #[test]
    fn version_1_has_a_hierarchy_for_memory() {
        let files = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/memory.limit_in_bytes", "500\n"),
            ("cpu/a/memory.limit_in_bytes", "1\n"),
        ];
        for (path, expected) in [("/a", Some(500)), ("/", None)] {
            let groups = format!("12:cpu,cpuacct:/a\n4:memory:{path}\n0::/\n");
            assert_eq!(limit_of(&groups, &files), expected, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_read_limits_nothing() {
        for groups in ["", "0::/", "no", "0:/"] {
            assert_eq!(limit_of(groups, &[("memory.max", "much\n")]), None, "{groups}");
        }
    }
}
