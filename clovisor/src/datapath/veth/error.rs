//! Why a pod's interface was not found, and whether waiting helps.

use std::io;
use std::path::PathBuf;

/// The host's interface of a pod could not be told.
#[derive(Debug, thiserror::Error)]
pub enum VethError {
    /// Nothing leads to the pod's network yet: look again at the next change of the host's interfaces.
    #[error(
        "the interface of pod {pod} is not there yet ({}); looking again when the host's interfaces change. \
         If that stays so: are /run/netns (with mountPropagation HostToContainer) and /var/lib/cni/results \
         of the host mounted, and does the agent run in the host's network namespace?",
        .looked.join("; ")
    )]
    NotYet {
        /// Namespace and name.
        pod: String,
        /// What was looked at, in order, with what it gave.
        looked: Vec<String>,
    },
    /// The pod's network namespace was found, and no veth or netkit leads into it.
    #[error(
        "pod {pod} cannot be traced from the host: {reason}. Pods on macvlan, ipvlan, SR-IOV or a moved \
         network card have no such pair; inside the pod's network namespace they can be traced, which needs \
         CAP_SYS_ADMIN (deploy/overlays/pod-side)"
    )]
    Unsupported {
        /// Namespace and name.
        pod: String,
        /// What was found instead.
        reason: String,
    },
    /// The pod's network namespace may not be entered.
    #[error("cannot enter the network namespace {} of pod {pod}: this needs CAP_SYS_ADMIN", .file.display())]
    MayNotEnter {
        /// Namespace and name.
        pod: String,
        /// Its file.
        file: PathBuf,
    },
    /// The pod's network namespace is the one that the agent runs in.
    #[error("pod {pod} uses the host's network: it has no interface of its own, and is skipped")]
    HostNetwork {
        /// Namespace and name.
        pod: String,
    },
    /// No netlink connection.
    #[error("cannot open a netlink connection: {0}; is AF_NETLINK forbidden by a seccomp profile?")]
    Connection(io::Error),
    /// The kernel refused a question.
    #[error("cannot {action}: {source}; this needs CAP_NET_ADMIN in the host's network namespace")]
    Netlink {
        /// What was asked for.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl VethError {
    /// Whether the next change of the host's interfaces may bring it; the others stay until the pod changes.
    #[must_use]
    pub fn is_worth_waiting(&self) -> bool {
        matches!(self, Self::NotYet { .. } | Self::Netlink { .. })
    }

    pub(super) fn netlink(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Netlink { action, source }
    }
}
