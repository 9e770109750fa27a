//! The agent of Clovisor, and its command line.
//!
//! One way through: [`datapath`] brings packets from the kernel, [`pipeline`] makes spans of them with the pure
//! crate `clovisor-trace`, [`outputs`] queues them for the sinks of [`export`], [`ledger`] holds every stage
//! against the next, [`overload`] decides what is left out where there is too much, [`summary`] tells what became of everything. A capture file may get
//! every packet on the way. [`threads`] says which thread does what. [`verbs`] puts these together, one file for each command of [`cli`].
#![forbid(unsafe_code)]

pub mod agent;
mod capture;
mod cgroup;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod datapath;
pub mod export;
pub mod failure;
pub mod ledger;
mod live;
pub mod memory;
pub mod metrics;
pub mod outputs;
pub mod overload;
pub mod pipeline;
pub mod plan;
pub mod red;
pub mod server;
mod signals;
pub mod summary;
pub mod threads;
pub mod verbs;
