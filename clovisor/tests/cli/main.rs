//! The program as users run it, against real servers and clients in network namespaces of the tests' own.
//! Needs root and the tools that each test names; without them a test says that it is skipped, and fails where
//! `CI` is set.
//!
//! It refuses to send anything over an interface that it did not make: the namespaces have no default route.
#![expect(clippy::unwrap_used, reason = "a test may panic; the lint spares only functions marked as tests")]

mod capture;
mod jaeger;
mod live;
mod load;
#[path = "../kernel/netns.rs"]
mod netns;
mod overload;
mod program;
mod server;
mod shedding;
mod unneeded;
mod usage;
