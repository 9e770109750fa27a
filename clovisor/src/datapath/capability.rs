//! Whether this process holds the capabilities that the datapath needs, and which it lacks.
//!
//! It refuses to acquire any: the caller tells the user.

use std::fmt;

/// One capability that the datapath needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Attach classifiers; read and write traffic control.
    NetAdmin,
    /// Load programs and create maps (CAP_SYS_ADMIN includes it, and before kernel 5.8 is the only way).
    Bpf,
    /// Open perf buffers, and let the verifier accept pointer arithmetic (CAP_SYS_ADMIN includes it).
    Perfmon,
}

/// Bit numbers (`include/uapi/linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Bpf => "CAP_BPF (or CAP_SYS_ADMIN)",
            Self::Perfmon => "CAP_PERFMON (or CAP_SYS_ADMIN)",
        })
    }
}

/// The capabilities that are not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process lacks {}, needed to load and attach eBPF programs: run it as root (for example with sudo), \
     or add the capabilities to the container's securityContext",
    list(.0)
)]
pub struct MissingCapabilities(pub Vec<Capability>);

/// Checks the effective capabilities of this process.
///
/// # Errors
/// Names all that are missing. Where `/proc` cannot be read nothing is known, and the kernel will tell.
pub fn check() -> Result<(), MissingCapabilities> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = effective(&status).map(missing).unwrap_or_default();
    if missing.is_empty() { Ok(()) } else { Err(MissingCapabilities(missing)) }
}

/// Whether this process may enter network namespaces of pods: CAP_SYS_ADMIN (setns(2)). The base deployment does
/// not have it.
#[must_use]
pub fn may_enter() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).is_some_and(|effective| effective & (1 << CAP_SYS_ADMIN) != 0)
}

fn effective(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<Capability> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    let admin = has(CAP_SYS_ADMIN);
    let needed = [
        (Capability::NetAdmin, has(CAP_NET_ADMIN)),
        (Capability::Bpf, has(CAP_BPF) || admin),
        (Capability::Perfmon, has(CAP_PERFMON) || admin),
    ];
    needed.into_iter().filter(|(_, there)| !there).map(|(capability, _)| capability).collect()
}

fn list(capabilities: &[Capability]) -> String {
    capabilities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let cases: [(&str, Vec<Capability>); 4] = [
            ("CapEff:\t000001ffffffffff", vec![]),
            ("CapEff:\t0000000000000000", vec![Capability::NetAdmin, Capability::Bpf, Capability::Perfmon]),
            ("CapEff:\t0000000000200000", vec![Capability::NetAdmin]),
            ("CapEff:\t000000c000001000", vec![]),
        ];
        for (status, expected) in cases {
            assert_eq!(missing(effective(status).unwrap()), expected, "{status}");
        }
        let text = MissingCapabilities(vec![Capability::NetAdmin, Capability::Bpf]).to_string();
        assert!(text.contains("CAP_NET_ADMIN, CAP_BPF (or CAP_SYS_ADMIN)"), "{text}");
    }
}
