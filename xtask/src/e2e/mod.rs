//! End-to-end scenarios in a real cluster: each a function of the [`World`] in a file of its own. A scenario fails by
//! returning an error that says what it expected and what it saw.

mod a_real_cluster;
mod agent;
mod changed_live;
mod first_look;
mod images;
mod inside_pods;
mod many_pods;
mod outages;
mod pods_come_and_go;
mod the_chart;
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
        about: "the README word for word: apply, three keys, traces of both sides; rights; removal without a trace",
        run: first_look::run,
    },
    Scenario {
        name: "changed-live",
        about: "labels, egress rules, wrong entries and Jaeger's address, changed while it runs",
        run: changed_live::run,
    },
    Scenario {
        name: "pods-come-and-go",
        about: "a Deployment scaled 0, 20, 0; pods restarted; a service renamed from tcp to http",
        run: pods_come_and_go::run,
    },
    Scenario {
        name: "inside-pods",
        about: "a pod without a veth, traced inside its network namespace by the overlay pod-side",
        run: inside_pods::run,
    },
    Scenario {
        name: "the-chart",
        about: "the Helm chart: the same objects as kustomize, wrong values refused, installed, upgraded, removed",
        run: the_chart::run,
    },
    Scenario {
        name: "outages",
        about: "the agent restarted and killed; API server, Redis and Jaeger each gone for a minute",
        run: outages::run,
    },
    Scenario {
        name: "many-pods",
        about: "300 pods outside the cluster, ten times over: no file, filter or map entry is left behind",
        run: many_pods::run,
    },
];
