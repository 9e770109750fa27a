//! What Clovisor costs, measured on this machine: [`live`] runs beside its [`peers`], what its programs cost the [`kernel`], what
//! many [`flows`] and many traced [`pods`] cost, how many [`spans`] a core makes in process and of how many [`instructions`]: a
//! [`suite`], of which there is a [`choice`], all in one [`table`], which [`markdown`] shows to people.
//!
//! They share the [`world`] of [`server`] and [`client`], the ways to start and end a [`tracer`], and what a process has [`usage`] of
//! the [`machine`]. Times drift on shared machines, so each run with a tracer stands between two without, and only ratios of
//! neighbours are compared. Nothing here decides a test.

pub(crate) mod choice;
pub(crate) mod client;
pub(crate) mod flows;
pub(crate) mod instructions;
pub(crate) mod kernel;
pub(crate) mod live;
pub(crate) mod machine;
pub(crate) mod markdown;
pub(crate) mod peers;
pub(crate) mod pods;
pub(crate) mod server;
pub(crate) mod spans;
pub(crate) mod suite;
pub(crate) mod table;
pub(crate) mod tracer;
pub(crate) mod usage;
pub(crate) mod world;
