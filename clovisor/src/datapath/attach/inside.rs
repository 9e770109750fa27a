//! Attaching inside pods' network namespaces, from outside.
//!
//! Always by clsact: the programs there learn from the filter's class id which interface it is, since indexes repeat
//! between namespaces; tcx links have none. What is attached is not followed as on the host: a namespace is entered
//! for each look, so a few are looked at each time, the one that waited longest first.
//!
//! It refuses to stay in a namespace (see [`namespace`](crate::datapath::namespace)), and to attach anew where
//! ours are gone: whoever asks finds the pod again from the start, and with it what its interface is now.

use std::io;
use std::path::Path;

use clovisor_common::{INSIDE, name};
use nix::libc;

use super::clsact::{self, Clsact, Order};
use super::netlink::TrafficControl;
use super::owner::Owner;
use super::sweep::{Swept, sweep};
use super::{AttachError, Attached, Attacher, Held, Hold, How, Way, program_fd};
use crate::datapath::interface::Interface;
use crate::datapath::kernel::Kernel;
use crate::datapath::namespace::Namespace;

/// Namespaces that are entered at one look, at up to a millisecond each: packets wait meanwhile.
const LOOKS: usize = 8;
/// Files of a folder of namespaces that are looked at: many times what a node has pods.
const MOST_FILES: usize = 8_192;

impl Attacher {
    /// A number for an interface inside a pod's namespace, held by none that is attached. They are given out in
    /// turn, so that one that was given back is not used again while packets with it may be under way.
    pub fn number(&mut self) -> u32 {
        // 16 bits, of which zero means none; never more than 65,534 are held, for a node has hundreds of pods.
        loop {
            self.last_number = self.last_number.checked_add(1).unwrap_or(1);
            let id = INSIDE | u32::from(self.last_number);
            if !self.held.contains_key(&id) {
                return id;
            }
        }
    }

    /// As [`Self::attach`], inside a namespace, of which leftovers are swept before.
    pub(super) async fn attach_inside(
        &mut self,
        kernel: &mut Kernel,
        interface: &Interface,
        namespace: &Namespace,
    ) -> Result<Attached, AttachError> {
        let programs = [program_fd(kernel, name::POD_INGRESS)?, program_fd(kernel, name::POD_EGRESS)?];
        let owner = Owner { id: self.instance.id, home: Some(self.home), made_clsact: false };
        // The mark of `INSIDE` is set by the kernel side.
        let class = u16::try_from(interface.id & !INSIDE).ok();
        let order = Order { owner, programs, class, must_be_first: false };
        let inside = namespace.enter().await.map_err(entering(namespace))?;
        let placed = self.place_inside(&TrafficControl::new(inside.handle()), interface, order).await;
        inside.leave().await;
        let clsact = placed?;
        let attached = Attached { interface: interface.clone(), how: How::Clsact, first: clsact.first };
        let hold = Some(Hold::Clsact(clsact));
        let held = Held { attached: attached.clone(), way: Way::Clsact, hold, reattached: 0, lost: false };
        self.held.insert(interface.id, held);
        self.rounds.push_back(interface.id);
        Ok(attached)
    }

    async fn place_inside(
        &self,
        tc: &TrafficControl,
        interface: &Interface,
        order: Order,
    ) -> Result<Clsact, AttachError> {
        let swept = sweep(tc, self.instance.id, Some(self.home)).await;
        swept.map_err(AttachError::netlink("sweep leftovers", &interface.name))?;
        clsact::attach(tc, interface, order).await
    }

    /// Takes the filters off. That the namespace is gone, and they with it, is fine.
    pub(super) async fn release_inside(
        &self,
        clsact: &Clsact,
        interface: &Interface,
        namespace: &Namespace,
    ) -> Result<(), AttachError> {
        let inside = match namespace.enter().await {
            Ok(inside) => inside,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(entering(namespace)(error)),
        };
        let done = clsact.detach(&TrafficControl::new(inside.handle()), interface).await;
        inside.leave().await;
        done
    }

    /// Looks into some of the namespaces, and forgets the interfaces on which ours are no more.
    pub(super) async fn recheck_inside(
        &mut self,
        kernel: &mut Kernel,
    ) -> Vec<(u32, Result<Attached, AttachError>)> {
        let mut done = Vec::new();
        for _ in 0..LOOKS.min(self.rounds.len()) {
            let Some(id) = self.rounds.pop_front() else { break };
            if !self.held.contains_key(&id) {
                continue;
            }
            if self.is_inside(id).await {
                self.rounds.push_back(id);
            } else {
                done.extend(self.forget(kernel, id).map(|error| (id, Err(error))));
            }
        }
        done
    }

    /// Whether ours are still there. Where the kernel does not say, they are.
    async fn is_inside(&self, id: u32) -> bool {
        let Some(held) = self.held.get(&id) else { return false };
        let interface = &held.attached.interface;
        let (Some(namespace), Some(Hold::Clsact(clsact))) = (&interface.namespace, &held.hold) else {
            return false;
        };
        match namespace.enter().await {
            Ok(inside) => {
                let tc = TrafficControl::new(inside.handle());
                let is_there = clsact.is_there(&tc, interface.index).await.unwrap_or(true);
                inside.leave().await;
                is_there
            }
            Err(error) => !is_gone(&error),
        }
    }

    /// Removes what Clovisors of this network namespace that are gone have left inside others: those that have a
    /// file in `directory`. Returns what was removed, and of how many namespaces that could not be told.
    ///
    /// # Errors
    /// [`AttachError::Enter`]: `directory` cannot be read.
    pub async fn sweep_inside(&self, directory: &Path) -> Result<(Swept, usize), AttachError> {
        let fault = |source| AttachError::Enter { file: directory.to_owned(), source };
        let files = std::fs::read_dir(directory).map_err(fault)?;
        let (mut swept, mut refused) = (Swept::default(), 0);
        for file in files.flatten().take(MOST_FILES) {
            match self.sweep_one(&file.path()).await {
                Ok(one) => swept = swept + one,
                Err(error) if is_gone(&error) => {}
                Err(_) => refused += 1,
            }
        }
        Ok((swept, refused))
    }

    async fn sweep_one(&self, file: &Path) -> io::Result<Swept> {
        let namespace = Namespace::at(file)?;
        if namespace.is_own() {
            return Ok(Swept::default());
        }
        let inside = namespace.enter().await?;
        let swept = sweep(&TrafficControl::new(inside.handle()), self.instance.id, Some(self.home)).await;
        inside.leave().await;
        swept
    }
}

/// Whether there is no such namespace any more: a file that stayed behind when its mount went is EINVAL.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::EINVAL)
}

fn entering(namespace: &Namespace) -> impl FnOnce(io::Error) -> AttachError {
    let file = namespace.file().to_owned();
    move |source| AttachError::Enter { file, source }
}
