//! `clovisor run` as a node runs it: a small API server, a real Redis, network namespaces as pods, real HTTP traffic.
//! Needs root, redis-server, nginx and curl; without them a test says that it is skipped, and fails where `CI` is set.
//!
//! It refuses to send anything over an interface that it did not make: the namespaces have no default route.
#![expect(clippy::unwrap_used, reason = "a test may panic; the lint spares only functions marked as tests")]

#[expect(dead_code, reason = "the library's own tests use the rest")]
#[path = "../../src/cluster/watch/server.rs"]
mod api;
#[expect(dead_code, reason = "the kernel tests use the rest")]
#[path = "../kernel/beyond.rs"]
mod beyond;
#[expect(dead_code, reason = "the tests of attaching use the rest")]
#[path = "../kernel/foreign.rs"]
mod foreign;
mod inside;
mod law;
mod lifecycle;
#[path = "../kernel/listen.rs"]
mod listen;
mod live;
#[path = "../kernel/netns.rs"]
mod netns;
mod node;
mod overload;
#[expect(dead_code, reason = "the tests of the kernel side use the rest")]
#[path = "../kernel/pods.rs"]
mod pods;
#[expect(dead_code, reason = "the tests of Redis use the rest")]
#[path = "../redis/server.rs"]
mod redis;
mod scale;
#[path = "../cli/server.rs"]
mod server;
