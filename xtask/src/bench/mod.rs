//! What Clovisor costs, measured on this machine: [`live`] runs, the [`machine`] that they ran on, and the [`table`] of both.
//!
//! Times drift on shared machines, so each run with Clovisor stands between two without, and only ratios of neighbours are
//! compared. Nothing here decides a test.

pub(crate) mod live;
pub(crate) mod machine;
pub(crate) mod table;
