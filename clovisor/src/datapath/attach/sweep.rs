//! Removes what Clovisors that ended without cleaning up (`kill -9`) left behind: at start, and by
//! `clovisor cleanup`.
//!
//! It refuses to remove a filter whose name is not exactly of our form, one whose instance lives or cannot be
//! asked from here, and a qdisc that no Clovisor made or that has a filter left.

use std::io;
use std::ops::Add;

use super::clsact::{delete_if_empty, owner_of};
use super::netlink::{Hook, TrafficControl};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Filters.
    pub filters: usize,
    /// clsact qdiscs.
    pub qdiscs: usize,
}

impl Add for Swept {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { filters: self.filters + other.filters, qdiscs: self.qdiscs + other.qdiscs }
    }
}

/// Sweeps all interfaces of a network namespace. `own` is the instance that asks, which lives; `home` the inode of
/// its namespace, where that is not the one that is swept.
pub(super) async fn sweep(tc: &TrafficControl, own: u32, home: Option<u64>) -> io::Result<Swept> {
    let mut swept = Swept::default();
    for interface in tc.interfaces_with_clsact().await? {
        let mut made_by_the_dead = false;
        for hook in Hook::BOTH {
            for filter in tc.filters(interface, hook).await? {
                let Some(owner) = owner_of(&filter) else { continue };
                if owner.id == own || owner.home != home || owner.is_alive() {
                    continue;
                }
                tc.delete_filter(interface, &filter).await?;
                swept.filters += 1;
                made_by_the_dead |= owner.made_clsact;
            }
        }
        if made_by_the_dead && delete_if_empty(tc, interface).await? {
            swept.qdiscs += 1;
        }
    }
    Ok(swept)
}
