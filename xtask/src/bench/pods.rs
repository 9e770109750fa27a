//! What many traced pods cost: processor time a session, and without any, and resident memory of one Clovisor, at the veths of so
//! many pods.
//!
//! Requests and connections are as many whatever the number of pods, and spread evenly over them. Each count has a node of its own, that
//! has these pods and a client's, since what Clovisor asks the kernel for goes with the node. One client and one server serve them all,
//! so that these cost the same each time.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::live;
use super::tracer::{Kind, Tracer};
use super::usage;
use super::world::{Programs, Size, Task, World};

/// Requests a second, over all pods.
const RATE: u32 = 20_000;
/// Connections, over all pods: a number that many others divide, and few enough that a connection's next request comes before the
/// acknowledgement of the response would be sent by itself.
const CONNECTIONS: u32 = 600;
/// How long it is watched with nothing to trace.
const IDLE: Duration = Duration::from_secs(3);

/// A node with so many pods, all traced; what Clovisor took.
pub(crate) fn measure(dir: &Path, programs: Programs, pods: u16, seconds: u16) -> Result<Value> {
    let world = World::new(dir, programs, Size { pods, addresses: 1, ..Size::default() })?;
    let each = (CONNECTIONS / u32::from(pods)).max(1);
    let task = Task { connections: each * u32::from(pods), rate: RATE, seconds, long: None };
    let tracer = Tracer::start(&world, Kind::File)?;
    usage::at_rest(tracer.id())?;
    let before = usage::of(tracer.id())?;
    thread::sleep(IDLE);
    let idle = usage::of(tracer.id())?.cpu_us - before.cpu_us;
    let (load, mut traced) = live::under(&world, task, tracer)?;
    traced["idle_us_per_second"] = (idle / IDLE.as_secs_f64()).into();
    traced["pods"] = pods.into();
    traced["answered"] = load["answered"].clone();
    traced["not_asked"] = load["not_asked"].clone();
    Ok(traced)
}
