//! What many traced pods cost: processor time a session and resident memory of one Clovisor, at the veths of so many pods.
//!
//! Requests and connections are as many whatever the number of pods, and spread evenly over them. All pods are there in all runs, and
//! one client and one server serve them, so that nothing grows but what is traced.

use anyhow::Result;
use serde_json::Value;

use super::live;
use super::tracer::Kind;
use super::world::{Size, Task, World};

/// Requests a second, over all pods.
const RATE: u32 = 20_000;
/// Connections, over all pods: a number that many others divide.
const CONNECTIONS: u32 = 1_200;

/// The size of a world of so many pods.
pub(crate) fn size(most: u16) -> Size {
    Size { pods: most, processes: 1, addresses: 1 }
}

/// With the first so many of the world's pods; what Clovisor took.
pub(crate) fn measure(world: &mut World, pods: u16, seconds: u16) -> Result<Value> {
    world.pods = pods.into();
    let each = (CONNECTIONS / u32::from(pods)).max(1);
    let task = Task { connections: each * u32::from(pods), rate: RATE, seconds, long: None };
    let (load, mut traced) = live::traced(world, task, Kind::File)?;
    traced["pods"] = pods.into();
    traced["answered"] = load["answered"].clone();
    Ok(traced)
}
