//! Processes of pods: `/proc/PID/cgroup` names the pod's UID, `/proc/PID/ns/net` is its network namespace.
//!
//! It refuses to report what it may not see: in a container without `hostPID` there are no foreign
//! processes, and `ns/net` of one needs CAP_SYS_PTRACE. Other ways of finding remain.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// `/proc/PID/ns/net` of one process of each pod, by UID.
pub(super) fn by_uid(proc: &Path) -> HashMap<String, Vec<PathBuf>> {
    let mut found: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for process in std::fs::read_dir(proc).into_iter().flatten().flatten() {
        let is_process = process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        let cgroup = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        if let Some(uid) = cgroup.lines().find_map(pod_of) {
            found.entry(uid).or_default().push(process.path().join("ns/net"));
        }
    }
    found
}

/// The pod's UID in a line of `/proc/PID/cgroup`, `ID:CONTROLLERS:PATH`, of cgroup v1 or v2. The path has
/// `/pod<UID>/` with kubelet's cgroupfs driver and `-pod<UID with _>.slice` with systemd's. A static pod's
/// UID is a hash, without dashes.
fn pod_of(line: &str) -> Option<String> {
    let path = line.splitn(3, ':').nth(2)?;
    let parts = path.split('/').filter(|_| path.contains("kubepods"));
    parts.filter_map(uid_of_part).next_back()
}

fn uid_of_part(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.strip_prefix("pod") {
        Some(uid) => uid,
        None => part.rsplit_once("-pod")?.1,
    };
    let is_uid = uid.len() >= 8 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || b"-_".contains(&byte));
    is_uid.then(|| uid.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_in_cgroups() {
        let uid = "0f6c2cfe-6f5d-4f0e-9d5c-5a4c6b6f0c11";
        let under = uid.replace('-', "_");
        let cases = [
            (format!("5:memory:/kubepods/burstable/pod{uid}/abc"), Some(uid)),
            (format!("0::/kubepods/pod{uid}/abc"), Some(uid)),
            (
                format!(
                    "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/cri-containerd-a.scope"
                ),
                Some(uid),
            ),
            (format!("1:cpu:/kubepods-pod{under}.slice:cri-containerd:abc"), None),
            (
                "0::/kubelet/kubepods/podd41d8cd98f00b204e9800998ecf8427e/x".to_owned(),
                Some("d41d8cd98f00b204e9800998ecf8427e"),
            ),
            ("0::/user.slice".to_owned(), None),
            ("0::/kubepods/podium/x".to_owned(), None),
            (format!("0::/pod{uid}"), None),
            (String::new(), None),
        ];
        for (line, expected) in cases {
            assert_eq!(pod_of(&line).as_deref(), expected, "{line}");
        }
    }
}
