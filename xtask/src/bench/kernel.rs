//! What Clovisor's programs cost in the kernel, by the kernel's own statistics of their runs.
//!
//! These cost time of their own, so they are on in these runs only, and nothing else is measured in them. Two loads: small requests,
//! where every other packet holds a head, and long bodies, where next to none does. A packet here is what the network stack hands
//! over at once: up to 64 KB of a body, as on any veth pair.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use aya::sys::{Stats, enable_stats};
use serde_json::{Value, json};

use super::live::CONNECTIONS;
use super::tracer::{Kind, Tracer};
use super::world::{Task, World};

/// Requests a second of the small load: what all tracers of the table can follow.
const RATE: u32 = 20_000;
/// Long responses, one after another: a gigabyte in all, and what is waited for it.
const LONG: u64 = 10;
const LONG_SECONDS: u16 = 120;

/// Both loads.
pub(crate) fn measure(world: &World, seconds: u16) -> Result<Value> {
    // Off again when this file is closed, also by a death of this process.
    let _on = enable_stats(Stats::RunTime)
        .context("the kernel gives no statistics of runs (it does from 5.8 on)")?;
    let small = Task { connections: CONNECTIONS, rate: RATE, seconds, long: None };
    let long = Task { connections: 1, rate: 0, seconds: LONG_SECONDS, long: Some(LONG) };
    Ok(json!({ "small": under(world, small)?, "long": under(world, long)? }))
}

fn under(world: &World, task: Task) -> Result<Value> {
    let mut tracer = Tracer::start(world, Kind::File)?;
    let mut client = world.open(task)?;
    tracer.begin()?;
    let before = programs(tracer.id())?;
    let load = client.run()?;
    let used = tracer.used()?;
    let after = programs(tracer.id())?;
    drop(client);
    ensure!(task.long.is_none_or(|count| load["answered"] == count), "not all long responses came: {load}");
    let finished = tracer.finish()?;
    let (mut all, mut each) = (Runs::default(), Vec::new());
    for (id, now) in &after {
        let runs = now.since(before.get(id).copied().unwrap_or_default());
        all = Runs { count: all.count + runs.count, ns: all.ns + runs.ns };
        each.push(runs.json());
    }
    ensure!(all.count > 0, "no program of Clovisor's has run");
    let answered = load["answered"].as_f64().unwrap_or_default();
    Ok(json!({
        "requests": load["answered"],
        "body_bytes": load["body_bytes"],
        "all": all.json(),
        "programs": each,
        "ns_per_request": all.ns as f64 / answered.max(1.0),
        "tracer": finished.json(&used, answered),
    }))
}

/// Runs of a program, and their time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Runs {
    count: u64,
    ns: u64,
}

impl Runs {
    fn since(self, before: Self) -> Self {
        Self { count: self.count - before.count, ns: self.ns - before.ns }
    }

    fn json(self) -> Value {
        let each = (self.count > 0).then(|| self.ns as f64 / self.count as f64);
        json!({ "runs": self.count, "ns": self.ns, "ns_per_run": each })
    }
}

/// The programs that a process holds, by the kernel's numbers: nobody else's are among them.
fn programs(process: u32) -> Result<BTreeMap<u32, Runs>> {
    let folder = format!("/proc/{process}/fdinfo");
    let files = fs::read_dir(&folder).with_context(|| format!("cannot look into {folder}"))?;
    // A file that was closed meanwhile is none of a program that runs.
    let texts = files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
    Ok(texts.filter_map(|text| parse(&text)).collect())
}

/// The number and the runs in a file's information, if it is a program (`bpf_prog_show_fdinfo` in kernel/bpf/syscall.c); a link has
/// the number alone.
fn parse(text: &str) -> Option<(u32, Runs)> {
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let runs = Runs { count: of("run_cnt:")?, ns: of("run_time_ns:")? };
    Some((u32::try_from(of("prog_id:")?).ok()?, runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_runs_and_a_link_has_none() {
        let program =
            "pos:\t0\nprog_type:\t3\nprog_id:\t42\nrun_time_ns:\t900\nrun_cnt:\t3\nverified_insns:\t7\n";
        assert_eq!(parse(program), Some((42, Runs { count: 3, ns: 900 })));
        assert_eq!(parse("pos:\t0\nlink_type:\ttcx\nlink_id:\t5\nprog_id:\t42\n"), None);
        let earlier = Runs { count: 1, ns: 400 };
        assert_eq!(Runs { count: 3, ns: 900 }.since(earlier).json()["ns_per_run"], 250.0);
    }
}
