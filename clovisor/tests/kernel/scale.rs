//! The scale law: many pods found, attached and detached over many rounds leave nothing behind: no file
//! descriptor, no link, no filter, no entry in a map. `CLOVISOR_SCALE=300` makes it 300 pods and ten rounds.
//!
//! Counts decide; time, memory and processor time are printed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use clovisor::datapath::attach::{Attacher, How, Way};
use clovisor::datapath::kernel::{Kernel, Rules};
use clovisor::datapath::packets::SMALLEST_BUFFER;
use clovisor::datapath::veth::PodInterfaces;
use clovisor_common::protocol;

use crate::buffers::{buffers, test};
use crate::netns::Net;
use crate::pods::Pods;

const EVERY_DAY: (u32, usize) = (50, 3);
/// tcx costs 25 ms a link: fewer of them.
const BY_TCX: usize = 10;

fn size() -> (u32, usize) {
    let asked = std::env::var("CLOVISOR_SCALE").ok().and_then(|text| text.parse().ok());
    asked.map_or(EVERY_DAY, |pods| (pods, 10))
}

fn rules() -> Rules {
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Rules {
        ports: BTreeMap::from([(80, protocol::HTTP), (8080, protocol::HTTP)]),
        egress: BTreeMap::from([((None, 443), protocol::HTTP), ((Some(address), 80), protocol::HTTP)]),
    }
}

/// Open files of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn status(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
}

/// Processor time of this process: user and system.
fn processor() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    Duration::from(time)
}

fn filters(net: &Net) -> usize {
    net.in_host(&["tc", "qdisc", "show"]).matches("clsact").count()
}

fn links(net: &Net) -> usize {
    net.in_host(&["ip", "-o", "link", "show"]).lines().count()
}

/// A process of its own, so that no other test's files, memory and time are counted.
#[test]
fn many_pods_over_many_rounds_leave_nothing_behind() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "scale::the_rounds", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "it is the other process of another test"]
fn the_rounds() {
    test("the_rounds", &[], |net| async move {
        let (count, rounds) = size();
        let links_before = links(&net);
        let pods = Pods::new(&net, count);
        let finder = PodInterfaces::new(pods.paths.clone()).await.unwrap();
        let mut kernel = Kernel::load(buffers(SMALLEST_BUFFER), false).unwrap();
        let mut attacher = Attacher::new().await.unwrap();
        let mut before = None;
        for round in 0..rounds {
            if round > 0 {
                // New pairs, new indexes; the namespaces stay.
                pods.connect(&net);
            }
            let (start, used) = (Instant::now(), processor());
            let mut snapshot = finder.snapshot().await.unwrap();
            let mut held = Vec::new();
            for (number, pod) in pods.pods.iter().enumerate() {
                let interface = snapshot.find(&pod.wanted()).await.unwrap().interface;
                kernel.set_rules(interface.index, &rules()).unwrap();
                let way = if number < BY_TCX { Way::Tcx } else { Way::Auto };
                attacher.attach(&mut kernel, &interface, way).await.unwrap();
                held.push(interface.index);
            }
            let attached = start.elapsed();
            let by_clsact = attacher.attached().filter(|one| one.how == How::Clsact).count();
            assert_eq!(attacher.attached().count(), count as usize);
            assert_eq!((filters(&net), kernel.rule_count().unwrap()), (by_clsact, count as usize * 4));
            let start = Instant::now();
            assert!(attacher.recheck(&mut kernel).await.is_empty());
            let rechecked = start.elapsed();
            let start = Instant::now();
            // Half of them are detached, and half go with their interfaces.
            let (first, second) = held.split_at(held.len() / 2);
            for index in first {
                attacher.detach(&mut kernel, *index).await.unwrap();
            }
            let detached = start.elapsed();
            assert_eq!(kernel.rule_count().unwrap(), second.len() * 4);
            let cpu = processor().saturating_sub(used);
            pods.disconnect(&net);
            let gone = attacher.recheck(&mut kernel).await;
            assert_eq!(gone.len(), second.len());
            assert_eq!((attacher.attached().count(), kernel.rule_count().unwrap(), filters(&net)), (0, 0, 0));
            drop(snapshot);
            assert_eq!(links(&net), links_before, "links leak");
            let now = descriptors();
            println!(
                "round {round}: {count} pods found and attached in {attached:?}, looked at again in {rechecked:?}, \
                 half detached in {detached:?}; {cpu:?} of processor, {} resident, {now} descriptors",
                status("VmRSS:")
            );
            assert_eq!(*before.get_or_insert(now), now, "file descriptors leak");
        }
    });
}
