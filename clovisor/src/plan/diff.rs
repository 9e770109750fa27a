//! What to do so that what is attached becomes what is wanted.

use std::{collections::BTreeMap, sync::Arc};

use super::PodPlan;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Take the classifiers off the pod with this UID.
    Detach(String),
    /// Change rules and names of an attached pod; its sessions in flight go on.
    Update(Arc<PodPlan>),
    /// Put the classifiers on a pod.
    Attach(Arc<PodPlan>),
}

/// The actions that make `attached` into `desired`, both by UID. Detaching comes first: it makes room in the kernel's
/// maps.
#[must_use]
pub fn diff(
    attached: &BTreeMap<String, Arc<PodPlan>>,
    desired: &BTreeMap<String, Arc<PodPlan>>,
) -> Vec<Action> {
    let gone = attached.keys().filter(|uid| !desired.contains_key(*uid)).cloned().map(Action::Detach);
    let changed = desired.iter().filter_map(|(uid, plan)| match attached.get(uid) {
        Some(held) if held != plan => Some(Action::Update(Arc::clone(plan))),
        _ => None,
    });
    let new = desired.iter().filter(|(uid, _)| !attached.contains_key(*uid));
    gone.chain(changed).chain(new.map(|(_, plan)| Action::Attach(Arc::clone(plan)))).collect()
}
