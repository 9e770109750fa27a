//! The verbs of `cargo xtask`, one a file: its arguments, and what it does in the order it does it.

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod compare;
pub(crate) mod demo;
pub(crate) mod e2e;
pub(crate) mod fuzz;
pub(crate) mod image;
pub(crate) mod jaeger;
pub(crate) mod lint;
pub(crate) mod setup;
pub(crate) mod soak;
pub(crate) mod test;
