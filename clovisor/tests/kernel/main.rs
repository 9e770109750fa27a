//! The kernel side against a real kernel: real programs, real hooks, real packets, in network namespaces of
//! the tests' own. Needs root; without it, or without a tool, a test says that it is skipped, and fails
//! where `CI` is set.
//!
//! It refuses to send anything over an interface that it did not make: the namespaces hold one veth pair and
//! no default route.
#![expect(clippy::unwrap_used, reason = "a test may panic; the lint spares only functions marked as tests")]

mod attach;
mod beyond;
mod buffers;
mod changes;
mod child;
mod counted;
mod crowd;
mod foreign;
mod frames;
mod inside;
mod listen;
mod losses;
mod netns;
mod one_sided;
mod pods;
mod programs;
mod recheck;
mod rights;
mod scale;
mod shares;
mod traffic;
mod transport;
mod unneeded;
mod veth;
mod veth_events;
