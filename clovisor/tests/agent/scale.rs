//! The scale law for the whole agent: many pods come and go over many rounds, told by the API server and by their
//! interfaces, and nothing stays behind: no file descriptor, no filter, no entry in a map. `CLOVISOR_SCALE=300` makes it
//! 300 pods and ten rounds.
//!
//! Counts decide; time, memory and processor time are printed.

use std::{
    fs,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use clovisor_common::{PortKey, name};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    netns::{Net, test},
    node::{Agent, Node, PATIENCE},
    pods::{Pod, Pods},
};

const EVERY_DAY: (u32, usize) = (30, 3);
/// Pods that come one by one, before all others at once.
const ONE_BY_ONE: usize = 10;
/// Ports of each pod.
const PORTS: usize = 2;

fn size() -> (u32, usize) {
    let asked = std::env::var("CLOVISOR_SCALE").ok().and_then(|text| text.parse().ok());
    asked.map_or(EVERY_DAY, |pods| (pods, 10))
}

fn put(node: &Node, pod: &Pod) {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "default", "uid": pod.uid, "labels": {"app": "scale"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i", "ports": [
            {"name": "http", "containerPort": 80}, {"name": "http-other", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": pod.address}]},
    });
    node.api.put("pods", &pod.name, object);
}

fn filters(net: &Net) -> usize {
    net.in_host(&["tc", "qdisc", "show"]).matches("clsact").count()
}

/// Waits until so many pods are attached and none is pending.
async fn attached(node: &Node, count: usize) {
    let all = [
        format!("clovisor_pods{{state=\"attached\"}} {count}"),
        "clovisor_pods{state=\"pending\"} 0".to_owned(),
    ];
    node.until(&format!("{count} pods attached"), |node| {
        let metrics = node.http("/metrics");
        all.iter().all(|line| metrics.lines().any(|found| found == line))
    })
    .await;
}

/// How long it takes from a pod's event until it is traced, by the log: the metrics are asked for too seldom.
async fn traced(node: &Node, pod: &Pod) -> Duration {
    let before = node.log().len();
    let start = Instant::now();
    put(node, pod);
    let line = format!("pod default/{} is traced", pod.name);
    while !node.log()[before..].contains(&line) {
        assert!(start.elapsed() < PATIENCE, "{line}: never said");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

#[test]
fn many_pods_over_many_rounds_leave_nothing_behind() {
    let name = "many_pods_over_many_rounds_leave_nothing_behind";
    test(name, &["nginx", "curl"], async move |net| {
        let (count, rounds) = size();
        let Some(mut node) = Node::new(name, std::sync::Arc::clone(&net)).await else { return };
        let pods = Pods::new(&net, count);
        node.cni_cache = pods.paths.cni_cache.clone();
        node.redis.cli(&["set", "clovisor_labels", "default:app:scale"]);
        let agent = node.run();
        node.until("ready", |node| node.http("/readyz") == "ok\n").await;
        attached(&node, 0).await;
        let mut before = None;
        for round in 0..rounds {
            if round > 0 {
                // New pairs, new indexes; the namespaces stay.
                pods.connect(&net);
            }
            let (singles, others) = pods.pods.split_at(ONE_BY_ONE);
            let used = agent.processor();
            let mut alone = Vec::new();
            for pod in singles {
                alone.push(traced(&node, pod).await);
            }
            alone.sort();
            let start = Instant::now();
            others.iter().for_each(|pod| put(&node, pod));
            attached(&node, pods.pods.len()).await;
            let all = start.elapsed();
            assert_eq!((filters(&net), agent.rules()), (pods.pods.len(), pods.pods.len() * PORTS));
            // Half of them are deleted, and half go with their interfaces before they are.
            let (told, torn) = pods.pods.split_at(pods.pods.len() / 2);
            let start = Instant::now();
            told.iter().for_each(|pod| node.api.delete("pods", &pod.name));
            attached(&node, torn.len()).await;
            let detached = start.elapsed();
            assert_eq!((filters(&net), agent.rules()), (torn.len(), torn.len() * PORTS));
            pods.disconnect(&net);
            torn.iter().for_each(|pod| node.api.delete("pods", &pod.name));
            attached(&node, 0).await;
            assert_eq!((filters(&net), agent.rules()), (0, 0));
            let (cpu, now) = (agent.processor().saturating_sub(used), agent.descriptors());
            println!(
                "round {round}: single pods traced {:?} to {:?} after the event, {} more after {all:?}, half \
                 detached after {detached:?}; {cpu:?} of processor, {} resident, {now} descriptors",
                alone[0],
                alone[ONE_BY_ONE - 1],
                others.len(),
                agent.memory()
            );
            // Those of the question just answered may still be open.
            let before = *before.get_or_insert(now);
            node.until("no descriptor more than after the first round", |_| agent.descriptors() <= before)
                .await;
        }
        assert_eq!(agent.terminate().await, Some(0));
    });
}

impl Agent {
    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.id())
    }

    /// Its open files.
    fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Its memory, as `/proc/PID/status` writes it.
    fn memory(&self) -> String {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().to_owned()
    }

    /// Its processor time: user and system.
    fn processor(&self) -> Duration {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.id().try_into().unwrap())).unwrap();
        Duration::from(clock_gettime(clock).unwrap())
    }

    /// How many listening ports its map in the kernel has.
    fn rules(&self) -> usize {
        let infos = fs::read_dir(self.proc("fdinfo")).unwrap().flatten();
        let texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
        let ids = texts.filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("map_id:")).and_then(|id| id.trim().parse().ok())
        });
        let mut maps = ids.map(|id: u32| MapData::from_id(id).unwrap());
        let ports = maps.find(|map| map.info().unwrap().name_as_str() == Some(name::PORTS)).unwrap();
        HashMap::<_, PortKey, u8>::try_from(Map::HashMap(ports)).unwrap().keys().map(Result::unwrap).count()
    }
}
