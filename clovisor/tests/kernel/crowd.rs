//! Many interfaces on one node: what is asked of the kernel for each does not grow with their number, and somebody
//! else who writes to the kernel's network configuration meanwhile gets his turn. `CLOVISOR_SCALE=300` for 300 pods.
//!
//! Counts decide; how long the other's writes took is printed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clovisor::datapath::attach::{Asked, Attacher, How, Way};
use clovisor::datapath::interface::Interface;
use clovisor::datapath::kernel::Kernel;
use clovisor::datapath::packets::SMALLEST_BUFFER;
use clovisor::datapath::veth::PodInterfaces;
use rtnetlink::LinkUnspec;

use crate::buffers::{buffers, test};
use crate::netns::Net;
use crate::pods::Pods;

const EVERY_DAY: u32 = 40;
/// tcx costs 25 ms a pod: fewer of them.
const BY_TCX: usize = 20;

fn size() -> u32 {
    std::env::var("CLOVISOR_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(EVERY_DAY)
}

async fn found(pods: &Pods) -> Vec<Interface> {
    let finder = PodInterfaces::new(pods.paths.clone()).await.unwrap();
    let mut snapshot = finder.snapshot().await.unwrap();
    let mut found = Vec::new();
    for pod in &pods.pods {
        found.push(snapshot.find(&pod.wanted()).await.unwrap().interface);
    }
    found
}

/// Processor time of this thread, on which all of the test runs but the other writer.
fn processor() -> Duration {
    Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

fn since(before: Asked, now: Asked) -> Asked {
    Asked { requests: now.requests - before.requests, answers: now.answers - before.answers }
}

#[test]
fn what_is_asked_for_an_interface_does_not_grow_with_the_node() {
    test("what_is_asked_for_an_interface_does_not_grow_with_the_node", &[], |net| async move {
        let pods = Pods::new(&net, size());
        let interfaces = found(&pods).await;
        // Every other has a clsact of somebody else.
        let mut commands = String::new();
        for interface in interfaces.iter().step_by(2) {
            writeln!(commands, "qdisc add dev {} clsact", interface.name).unwrap();
        }
        let file = pods.paths.cni_cache.join("../commands");
        std::fs::write(&file, commands).unwrap();
        net.in_host(&["tc", "-batch", file.to_str().unwrap()]);
        let mut kernel = Kernel::load(buffers(SMALLEST_BUFFER), false).unwrap();
        let mut attacher = Attacher::new().await.unwrap();
        let used = processor();
        let mut asked = [BTreeSet::new(), BTreeSet::new()];
        for (number, interface) in interfaces.iter().enumerate() {
            let before = attacher.asked();
            let attached = attacher.attach(&mut kernel, interface, Way::Auto).await.unwrap();
            assert_eq!((attached.how, attached.first), (How::Clsact, true));
            let Asked { requests, answers } = since(before, attacher.asked());
            asked[number % 2].insert((requests, answers));
        }
        println!("{} attached: {:?} of processor", interfaces.len(), processor() - used);
        println!("requests and answers for each, where a clsact was and where none was: {asked:?}");
        assert!(
            asked.iter().all(|one| one.len() == 1),
            "it differs with the interfaces there are: {asked:?}"
        );
        let [with, without] = asked.map(|one| one.first().unwrap().0);
        // A qdisc, and on each hook a filter and a list; where a qdisc is already, what it is and what is on it.
        assert_eq!((with, without), (8, 5));
        let before = attacher.asked();
        let used = processor();
        assert!(attacher.recheck(&mut kernel).await.is_empty());
        let looked = since(before, attacher.asked()).requests;
        println!("{} looked at again: {:?} of processor", interfaces.len(), processor() - used);
        // Each has just changed: its name, and the filters on each hook.
        assert_eq!(looked, 3 * interfaces.len() as u64);
        let used = processor();
        assert!(attacher.recheck(&mut kernel).await.is_empty());
        println!("{} of which nothing was told: {:?} of processor", interfaces.len(), processor() - used);
        attacher.detach_all(&mut kernel).await.unwrap();
        // Only those of somebody else remain.
        let qdiscs = net.in_host(&["tc", "qdisc", "show"]).matches("clsact").count();
        assert_eq!(qdiscs, interfaces.len().div_ceil(2));
    });
}

/// Somebody who changes an interface that is none of ours, again and again.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Writer {
    fn start(net: &Net) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = net.host_thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                let mut took = Vec::new();
                while !stopped.load(Ordering::Relaxed) || took.is_empty() {
                    let start = Instant::now();
                    // The loopback device: nothing listens to its alias.
                    let change = LinkUnspec::new_with_index(1).alias(format!("write {}", took.len())).build();
                    netlink.link().set(change).execute().await.unwrap();
                    took.push(start.elapsed());
                }
                took
            })
        });
        Self { stop, thread }
    }

    /// Ends it, and prints how long its writes took; none of them was lost.
    fn end(self, net: &Net, beside: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let mut took = self.thread.join().unwrap();
        took.sort();
        let at = |share: usize| took[(took.len() - 1) * share / 1000];
        println!(
            "another's {} writes beside {beside}: p50 {:?}, p99 {:?}, longest {:?}",
            took.len(),
            at(500),
            at(990),
            at(1000)
        );
        let last = format!("write {}", took.len() - 1);
        assert!(net.in_host(&["ip", "link", "show", "lo"]).contains(&last), "{last} is not there");
    }
}

#[test]
fn another_writer_gets_its_turn() {
    test("another_writer_gets_its_turn", &[], |net| async move {
        let pods = Pods::new(&net, size());
        let interfaces = found(&pods).await;
        let mut kernel = Kernel::load(buffers(SMALLEST_BUFFER), false).unwrap();
        let mut attacher = Attacher::new().await.unwrap();
        let alone = Writer::start(&net);
        tokio::time::sleep(Duration::from_secs(1)).await;
        alone.end(&net, "nothing");
        for (way, count) in
            [(Way::Clsact, interfaces.len()), (Way::Auto, interfaces.len()), (Way::Tcx, BY_TCX)]
        {
            let (interfaces, _) = interfaces.split_at(count);
            let writer = Writer::start(&net);
            let start = Instant::now();
            for interface in interfaces {
                attacher.attach(&mut kernel, interface, way).await.unwrap();
            }
            let took = start.elapsed();
            writer.end(&net, &format!("{count} pods attached by {way:?} in {took:?}"));
            let writer = Writer::start(&net);
            assert!(attacher.recheck(&mut kernel).await.is_empty());
            writer.end(&net, &format!("{count} looked at again"));
            let writer = Writer::start(&net);
            let start = Instant::now();
            attacher.detach_all(&mut kernel).await.unwrap();
            let took = start.elapsed();
            writer.end(&net, &format!("{count} detached in {took:?}"));
            assert_eq!(attacher.attached().count(), 0);
        }
    });
}
