//! End-to-end scenarios in a real cluster: each a function of the [`World`] in a file of its own. A scenario fails by
//! returning an error that says what it expected and what it saw.

mod a_real_cluster;
mod first_look;
mod images;
mod world;

use anyhow::Result;

pub(crate) use world::World;

/// One scenario.
pub(crate) struct Scenario {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) about: &'static str,
    /// Plays it.
    pub(crate) run: fn(&mut World) -> Result<()>,
}

/// All scenarios, in the order in which they are played.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "a-real-cluster",
        about: "the cluster that the others rely on: pods, services, names, exec, logs, RBAC, Jaeger, Redis, a way out",
        run: a_real_cluster::run,
    },
    Scenario {
        name: "first-look",
        about: "the README's way: apply, three keys, traces; changes live, kill -9, removal",
        run: first_look::run,
    },
];
