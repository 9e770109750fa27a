//! Real clients and servers with a path between them that loses, doubles and reorders packets, traced at both ends: the
//! law is that no response is ever paired with another's request, and that nothing is missed or made up.
//!
//! Needs root and the tools that each test names; without them a test says that it is skipped, and fails where `CI` is set.
//! `CLOVISOR_DAMAGE=20` does the rounds of each server 20 times, with other dice. It refuses to send anything over an
//! interface that it did not make: the clients' namespaces have no default route.
#![expect(clippy::unwrap_used, reason = "a test may panic; the lint spares only functions marked as tests")]

mod clients;
mod joined;
mod law;
#[path = "../kernel/netns.rs"]
#[expect(dead_code, reason = "the two namespaces of other tests are not used here")]
mod netns;
mod nodes;
mod path;
mod pipelining;
#[path = "../cli/program.rs"]
#[expect(dead_code, reason = "parts that only the tests of the command line use")]
mod program;
mod record;
mod servers;
mod stacks;
