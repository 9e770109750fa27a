//! What the fuzz targets do with their input, free of the fuzzing engine, so that tests can run it too.
//!
//! A target is a function of bytes that panics where a law of `clovisor-trace` does not hold. It is deterministic:
//! the same bytes do the same.

use std::path::PathBuf;

pub mod capture;
pub mod http;
pub mod packet;
mod proper;
pub mod seeds;
pub mod steps;
pub mod tracer;
#[path = "../../clovisor-trace/tests/trim/mod.rs"]
mod trim;
mod watched;
mod wire;

/// A target: its name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by name.
pub const TARGETS: [Target; 4] =
    [("packet", packet::run), ("http", http::run), ("tracer", tracer::run), ("capture", capture::run)];

/// The folder of this package.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
