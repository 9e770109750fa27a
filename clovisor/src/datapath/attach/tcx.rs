//! Attaching by tcx (kernel 6.6): one link on each hook, first in the chain. Links vanish with the process.
//!
//! It costs a kernel grace period a link, about 25 ms an interface spent under the kernel's network
//! configuration lock, so it is for where clsact will not do: all tcx programs of an interface run before
//! any clsact filter, and one that gives a final verdict keeps the packets from clsact.

use std::io::ErrorKind;
use std::time::Duration;

use aya::programs::links::LinkOrder;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::{ProgramError, SchedClassifier};
use clovisor_common::name;

use super::error::AttachError;
use super::netlink::Hook;
use crate::datapath::interface::Interface;
use crate::datapath::kernel::{Kernel, KernelError};

/// How often a chain is asked for: programs do not go that fast one after another.
const QUERIES: usize = 3;

/// How often, and how long after each other, a hook is tried that still has our old link.
const ATTACH_TRIES: u32 = 20;
const ATTACH_PAUSE: Duration = Duration::from_millis(10);

/// How long the kernel's network configuration lock is left alone before a link takes it for a grace period: enough for
/// whoever waits for it to wake up and take it, so that many links in a row keep nobody out for more than one.
const LEAVE_TO_OTHERS: Duration = Duration::from_millis(1);

/// Our links on one interface; dropping them detaches.
pub(super) struct Tcx {
    _links: Vec<SchedClassifierLink>,
}

/// Puts one link on each hook, in front of all others. `programs` are the names, in the order of
/// [`Hook::BOTH`]. Not `patient`, it does not wait for an old link of ours to go.
pub(super) async fn attach(
    kernel: &mut Kernel,
    interface: &Interface,
    programs: [&'static str; 2],
    patient: bool,
) -> Result<Tcx, AttachError> {
    let mut links = Vec::with_capacity(2);
    for (hook, name) in Hook::BOTH.into_iter().zip(programs) {
        tokio::time::sleep(LEAVE_TO_OTHERS).await;
        let program = kernel.program(name)?;
        let link = attach_link(program, interface, hook, patient).map_err(|source| AttachError::Tcx {
            interface: interface.name.clone(),
            hook,
            source,
        })?;
        links.push(link);
    }
    Ok(Tcx { _links: links })
}

/// Attaches in front. A link of ours that was just dropped can live on for a moment, in a child process between
/// fork and exec, and the kernel takes a program once a hook: so that is waited for.
fn attach_link(
    program: &mut SchedClassifier,
    interface: &Interface,
    hook: Hook,
    patient: bool,
) -> Result<SchedClassifierLink, ProgramError> {
    let mut tries = if patient { 0 } else { ATTACH_TRIES };
    loop {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        match program.attach_with_options(&interface.name, attach_type(hook), options) {
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == ErrorKind::AlreadyExists && tries < ATTACH_TRIES =>
            {
                tries += 1;
                std::thread::sleep(ATTACH_PAUSE);
            }
            attached => return attached.and_then(|id| program.take_link(id)),
        }
    }
}

/// What runs on a hook by tcx.
pub(super) struct Chain {
    /// Program ids, in the order in which they run, and whether each is a Clovisor's.
    programs: Vec<(u32, bool)>,
}

impl Chain {
    /// Reads it; `None` where the kernel has no tcx, or the interface is gone.
    pub(super) fn of(interface: &Interface, hook: Hook) -> Option<Self> {
        // The kernel lists ids, and a program that goes before it is looked up makes the whole query fail.
        let query = |_| SchedClassifier::query_tcx(&interface.name, attach_type(hook)).ok();
        let (_, programs) = (0..QUERIES).find_map(query)?;
        let is_ours = |program: &str| [name::INGRESS, name::EGRESS_PROGRAM].contains(&program);
        let programs = programs
            .iter()
            .map(|program| (program.id(), program.name_as_str().is_some_and(is_ours)))
            .collect();
        Some(Self { programs })
    }

    /// Whether a program of somebody else is there. Clovisors let the chain go on.
    pub(super) fn has_foreign(&self) -> bool {
        self.programs.iter().any(|&(_, ours)| !ours)
    }

    /// Whether the program `id` is there.
    pub(super) fn has(&self, id: u32) -> bool {
        self.programs.iter().any(|&(program, _)| program == id)
    }

    /// Whether the program `id` is there with no foreign one in front.
    pub(super) fn leads(&self, id: u32) -> bool {
        self.programs.iter().take_while(|&&(_, ours)| ours).any(|&(program, _)| program == id)
    }
}

/// The kernel's id of a program of ours.
pub(super) fn program_id(kernel: &mut Kernel, name: &'static str) -> Result<u32, KernelError> {
    let info = kernel.program(name)?.info();
    info.map(|info| info.id()).map_err(|source| KernelError::Program { name, source })
}

fn attach_type(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Ingress => TcAttachType::Ingress,
        Hook::Egress => TcAttachType::Egress,
    }
}
