//! Why the classifiers could not be put on, or taken off, an interface.

use std::io;
use std::path::PathBuf;

use aya::programs::ProgramError;

use super::netlink::Hook;
use crate::datapath::kernel::KernelError;

/// Attaching, detaching or sweeping failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No netlink connection.
    #[error("cannot open a netlink connection: {0}; is AF_NETLINK forbidden by a seccomp profile?")]
    Connection(io::Error),
    /// No identity for this instance.
    #[error("cannot claim an instance id by an abstract Unix socket: {0}; is AF_UNIX forbidden?")]
    Identity(io::Error),
    /// A traffic control request was refused.
    #[error("cannot {action} on {interface}: {source}{}", hint(.source))]
    Netlink {
        /// What was asked for.
        action: &'static str,
        /// Name of the interface, or what stands for it.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An `ingress` qdisc, or another kind, sits where clsact goes.
    #[error(
        "cannot attach to {interface} by clsact: a qdisc of kind `{kind}` sits at ffff:; use --attach tcx \
         (kernel 6.6), or remove it with `tc qdisc del dev {interface} {kind}` if nobody needs it"
    )]
    Occupied {
        /// Name of the interface.
        interface: String,
        /// Kind of the qdisc.
        kind: String,
    },
    /// No place in front of the other filters.
    #[error("another filter holds the first place of {interface}'s {} hook, which cannot be shared", .hook.name())]
    NotFirst {
        /// Name of the interface.
        interface: String,
        /// The hook.
        hook: Hook,
    },
    /// No place at all that can be taken.
    #[error("no free place among the filters on {interface}'s {} hook; see `tc filter show`", .hook.name())]
    Full {
        /// Name of the interface.
        interface: String,
        /// The hook.
        hook: Hook,
    },
    /// The kernel has no tcx.
    #[error("the kernel has no tcx (it came with 6.6); use --attach clsact")]
    TcxUnsupported,
    /// The kernel refused a tcx link.
    #[error("cannot attach to {interface}'s {} hook by tcx: {source}", .hook.name())]
    Tcx {
        /// Name of the interface.
        interface: String,
        /// The hook.
        hook: Hook,
        /// The kernel's answer.
        source: ProgramError,
    },
    /// A pod's network namespace cannot be entered.
    #[error("cannot enter the network namespace {}: {source}{}", .file.display(), enter_hint(.source))]
    Enter {
        /// Its file.
        file: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Attached already.
    #[error("{0} is attached already; detach it first")]
    Already(String),
    /// The interface went, and what was attached to it with it.
    #[error("{0} is gone, and with it what was attached there")]
    Gone(String),
    /// The program is not usable.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl AttachError {
    pub(super) fn netlink(action: &'static str, interface: &str) -> impl FnOnce(io::Error) -> Self {
        let interface = interface.to_owned();
        move |source| Self::Netlink { action, interface, source }
    }
}

fn enter_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(nix::libc::EPERM) => "; this needs CAP_SYS_ADMIN",
        _ => "",
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(nix::libc::EPERM) => "; this needs CAP_NET_ADMIN in the network namespace of the interface",
        Some(nix::libc::ENODEV) => "; the interface is gone",
        Some(nix::libc::ENOENT) => "; does the kernel have the modules sch_ingress and cls_bpf?",
        _ => "",
    }
}
