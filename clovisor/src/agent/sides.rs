//! From which side each pod is attached: at the host's end of its veth, or inside its network namespace.
//!
//! The host's end is the first choice, for nothing is entered there. A pod without one, or whose packets pass it in
//! one direction only, is attached inside, if this process may enter; if not, what is not seen is said, once a pod.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use clovisor_trace::Heading;
use tokio::time::Instant;

use super::pods::{Pods, wanted};
use crate::{
    datapath::{
        attach::{Attacher, Swept},
        capability,
        veth::{PodInterface, PodInterfaces, Snapshot, VethError, Wanted},
    },
    live::Live,
    plan::{Desired, PodPlan},
};

/// Pods that change sides at a time, of a few milliseconds each: packets wait meanwhile.
const AT_ONCE: usize = 8;

/// What is known of pods, by UID, for as long as they are wanted.
pub(super) struct Sides {
    may_enter: bool,
    /// Pods that were found one-sided on the host, and are attached inside.
    inside: BTreeMap<String, Heading>,
    /// Pods of which one direction is not seen, and that is all that can be done.
    one_sided: BTreeMap<String, Heading>,
}

/// Sweeps the pods' network namespaces, where they may be entered. What cannot be swept harms nobody: its filters
/// let every packet go on, and a pod is swept again before it is attached.
pub(super) async fn sweep(attacher: &Attacher, directory: &Path) -> Swept {
    if !capability::may_enter() {
        return Swept::default();
    }
    match attacher.sweep_inside(directory).await {
        Ok((swept, refused)) => {
            if refused > 0 {
                tracing::warn!("{refused} network namespaces could not be looked at for leftovers");
            }
            swept
        }
        Err(error) => {
            tracing::warn!("pods' network namespaces are not cleaned up: {error}");
            Swept::default()
        }
    }
}

impl Sides {
    pub(super) fn new() -> Self {
        let may_enter = capability::may_enter();
        if may_enter {
            tracing::info!("where it must, this enters pods' network namespaces (CAP_SYS_ADMIN)");
        }
        Self { may_enter, inside: BTreeMap::new(), one_sided: BTreeMap::new() }
    }

    /// Forgets pods that are no longer wanted.
    pub(super) fn keep(&mut self, desired: &Desired) {
        self.inside.retain(|uid, _| desired.pods.contains_key(uid));
        self.one_sided.retain(|uid, _| desired.pods.contains_key(uid));
    }

    /// The pod's interface on the side that shows all its packets, as far as is known.
    pub(super) async fn find(
        &self,
        interfaces: &mut Snapshot,
        wanted: &Wanted<'_>,
        live: &mut Live,
    ) -> Result<PodInterface, VethError> {
        if !self.inside.contains_key(wanted.uid) {
            match interfaces.find(wanted).await {
                Err(VethError::Unsupported { .. }) if self.may_enter => {}
                found => return found,
            }
        }
        interfaces.find_inside(wanted, live.number()).await
    }

    /// Attaching inside has failed. Whether that leaves the host's end, where the pod is seen at least in part.
    pub(super) fn fall_back(&mut self, uid: &str) -> bool {
        match self.inside.remove(uid) {
            Some(heading) => self.one_sided.insert(uid.to_owned(), heading).is_none(),
            None => false,
        }
    }

    /// Whether the pod is to be attached inside from now on; otherwise it is said why not, once.
    async fn may_change(&mut self, plan: &PodPlan, heading: Heading, interfaces: &mut Snapshot) -> bool {
        let why = if self.inside.contains_key(&plan.uid) {
            "not even inside its network namespace: they take another of its interfaces".to_owned()
        } else if self.may_enter {
            // It is looked up once more when it is attached, with its number.
            match interfaces.find_inside(&wanted(plan), 0).await {
                Ok(_) => {
                    self.inside.insert(plan.uid.clone(), heading);
                    return true;
                }
                Err(error) => error.to_string(),
            }
        } else {
            "they are delivered past the host's end of its veth, as Cilium and Calico's eBPF mode do; with \
             CAP_SYS_ADMIN (deploy/overlays/pod-side) it is traced inside its network namespace"
                .to_owned()
        };
        let missing = match heading {
            Heading::ToPod => "goes to it",
            Heading::FromPod => "comes from it",
        };
        tracing::warn!("pod {}/{}: most of what {missing} is not seen: {why}", plan.namespace, plan.name);
        self.one_sided.insert(plan.uid.clone(), heading);
        false
    }
}

impl Pods {
    /// How many pods are attached at the host, and inside.
    pub(super) fn by_side(&self) -> [usize; 2] {
        let inside = self.held.values().filter(|held| held.interface.namespace.is_some()).count();
        [self.held.len() - inside, inside]
    }

    /// How many pods are seen in one direction only.
    pub(super) fn one_sided(&self) -> usize {
        self.sides.one_sided.len()
    }

    /// Takes note of interfaces that show one direction only, of some at each call. Whether a pod was detached, to be
    /// attached inside.
    pub(super) async fn notice(&mut self, live: &mut Live, veths: &PodInterfaces) -> bool {
        let of_id = |id| self.held.values().find(|held| held.interface.id == id);
        let plan = |(id, heading)| of_id(id).map(|held| (id, heading, Arc::clone(&held.plan)));
        let unseen = live.pipeline.unseen().into_iter().filter_map(plan);
        let unseen = unseen.filter(|(_, _, plan)| !self.sides.one_sided.contains_key(&plan.uid));
        let unseen: Vec<_> = unseen.take(AT_ONCE).collect();
        if unseen.is_empty() {
            return false;
        }
        let Ok(mut interfaces) = veths.snapshot().await else { return false };
        let mut detached = false;
        for (id, heading, plan) in unseen {
            if !self.sides.may_change(&plan, heading, &mut interfaces).await {
                continue;
            }
            let pod = format!("{}/{}", plan.namespace, plan.name);
            tracing::info!("pod {pod} shows one direction only on the host: tracing it inside its namespace");
            self.held.remove(&plan.uid);
            if let Err(error) = live.detach(id).await {
                tracing::warn!("pod {pod}: {error}");
            }
            self.retiring.push_back((Instant::now(), id));
            detached = true;
        }
        detached
    }
}
