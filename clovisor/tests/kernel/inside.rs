//! Attaching inside pods' namespaces, from the host's: told apart where indexes repeat, nothing left, nothing held.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clovisor::datapath::attach::{AttachError, Attacher, How, Swept, Way};
use clovisor::datapath::interface::Interface;
use clovisor::datapath::kernel::{Kernel, Rules};
use clovisor::datapath::packets::{DEFAULT_BUFFER, Packets};
use clovisor::datapath::veth::{Found, PodInterfaces, VethError, Wanted};
use clovisor_common::{EventHeader, INSIDE, direction, protocol};

use crate::buffers::{buffers, test};
use crate::child;
use crate::frames::SERVER_PORT;
use crate::netns::{HOST_V4, Net, run, thread_in, try_run};
use crate::pods::{Pod, Pods, ip_batch};
use crate::traffic::{ask, serve};

/// Pods that the host can talk to.
fn reachable(net: &Net, count: u32) -> Pods {
    let pods = Pods::new(net, count);
    for pod in &pods.pods {
        ip_batch(&net.host, &format!("route add {}/32 dev {}\n", pod.address, pod.veth));
        ip_batch(&pod.netns, &format!("route add {HOST_V4}/32 dev eth0\n"));
    }
    pods
}

/// What tc knows of a pod's own interface.
fn tc_state(pod: &Pod) -> String {
    let show = |what: &[&str]| {
        let output = try_run("ip", &[&["netns", "exec", &pod.netns, "tc"][..], what].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    show(&["qdisc", "show"])
        + &show(&["filter", "show", "dev", "eth0", "ingress"])
        + &show(&["filter", "show", "dev", "eth0", "egress"])
}

struct Inside {
    kernel: Kernel,
    packets: Packets,
    attacher: Attacher,
}

impl Inside {
    async fn new() -> Self {
        let mut kernel = Kernel::load(buffers(DEFAULT_BUFFER), false).unwrap();
        let packets = kernel.packets().unwrap();
        Self { kernel, packets, attacher: Attacher::new().await.unwrap() }
    }

    /// Attaches inside the pod, wherever the host's finder says that is.
    async fn attach(&mut self, pods: &Pods, pod: &Pod) -> Interface {
        let finder = PodInterfaces::new(pods.paths.clone()).await.unwrap();
        let id = self.attacher.number();
        let found = finder.snapshot().await.unwrap().find_inside(&pod.wanted(), id).await.unwrap();
        assert_eq!((found.found, found.has_address), (Found::CniCache, Some(true)));
        let ports = BTreeMap::from([(SERVER_PORT, protocol::HTTP)]);
        self.kernel.set_rules(id, &Rules { ports, egress: BTreeMap::new() }).unwrap();
        let attached = self.attacher.attach(&mut self.kernel, &found.interface, Way::Auto).await.unwrap();
        assert_eq!((attached.how, attached.first), (How::Clsact, true));
        found.interface
    }

    fn events(&mut self) -> Vec<(EventHeader, Vec<u8>)> {
        let mut events = Vec::new();
        self.packets.flush(&mut |header, packet| events.push((*header, packet.to_vec())));
        events
    }
}

fn exchange(pod: &Pod, request: &'static [u8], response: &'static [u8]) {
    let server = serve(&pod.netns, pod.address, request, response);
    ask(pod.address, request, response);
    server.join().unwrap();
}

#[test]
fn pods_whose_interfaces_have_the_same_index_are_told_apart() {
    test("pods_whose_interfaces_have_the_same_index_are_told_apart", &[], |net| async move {
        let pods = reachable(&net, 2);
        let [first, second] = pods.pods.as_slice() else { unreachable!() };
        let before = [tc_state(first), tc_state(second)];
        let mut inside = Inside::new().await;
        let one = inside.attach(&pods, first).await;
        let two = inside.attach(&pods, second).await;
        assert_eq!(
            (one.index, one.name.as_str()),
            (two.index, two.name.as_str()),
            "this test proves nothing"
        );
        assert!(one.id != two.id && one.id & two.id & INSIDE != 0);

        exchange(first, b"one asks", b"one answers");
        exchange(second, b"two asks", b"two answers");
        let events = inside.events();
        let of = |text: &[u8]| {
            let found = events.iter().find(|(_, packet)| packet.ends_with(text));
            found.map(|(header, _)| (header.interface, header.direction))
        };
        for (interface, asks, answers) in
            [(&one, b"one asks".as_slice(), b"one answers".as_slice()), (&two, b"two asks", b"two answers")]
        {
            assert_eq!(of(asks), Some((interface.id, direction::TO_POD)));
            assert_eq!(of(answers), Some((interface.id, direction::FROM_POD)));
            let count = events.iter().filter(|(header, _)| header.interface == interface.id).count();
            assert!(count >= 7, "a connection has at least 7 packets, got {count}");
        }
        assert!(events.iter().all(|(header, _)| [one.id, two.id].contains(&header.interface)));
        assert!(inside.attacher.recheck(&mut inside.kernel).await.is_empty());

        // One is detached, the other goes on.
        inside.attacher.detach(&mut inside.kernel, one.id).await.unwrap();
        assert_eq!(tc_state(first), before[0]);
        // The last packets of the connections before may have come after those were looked at.
        inside.events();
        exchange(first, b"one asks", b"one answers");
        exchange(second, b"two asks", b"two answers");
        assert!(inside.events().iter().all(|(header, _)| header.interface == two.id));
        inside.attacher.detach_all(&mut inside.kernel).await.unwrap();
        assert_eq!(tc_state(second), before[1]);
        assert_eq!(inside.kernel.rule_count().unwrap(), 0);
        assert_ne!(inside.attacher.number(), one.id, "its last packets may still be under way");
    });
}

#[test]
fn many_pods_are_attached_looked_after_and_left() {
    test("many_pods_are_attached_looked_after_and_left", &[], |net| async move {
        let pods = Pods::new(&net, 60);
        let mut inside = Inside::new().await;
        let start = Instant::now();
        let mut ids = BTreeSet::new();
        for pod in &pods.pods {
            ids.insert(inside.attach(&pods, pod).await.id);
        }
        println!("60 pods found and attached inside: {:?}", start.elapsed());
        assert_eq!((ids.len(), inside.attacher.attached().count()), (60, 60));
        // One is gone; each look goes into some of the others, and after a few it is noticed.
        run("ip", &["netns", "del", &pods.pods[59].netns]);
        let mut gone = Vec::new();
        for _ in 0..8 {
            let start = Instant::now();
            gone.extend(inside.attacher.recheck(&mut inside.kernel).await);
            println!("one look: {:?}", start.elapsed());
        }
        assert!(matches!(gone.as_slice(), [(_, Err(AttachError::Gone(_)))]), "{gone:?}");
        assert_eq!(inside.attacher.attached().count(), 59);
        let start = Instant::now();
        inside.attacher.detach_all(&mut inside.kernel).await.unwrap();
        println!("59 pods detached: {:?}", start.elapsed());
        for pod in &pods.pods[..59] {
            assert!(!tc_state(pod).contains("clsact"));
        }
    });
}

#[test]
fn a_namespace_is_not_held_and_one_that_is_gone_is_told() {
    test("a_namespace_is_not_held_and_one_that_is_gone_is_told", &[], |net| async move {
        let pods = reachable(&net, 2);
        let [first, second] = pods.pods.as_slice() else { unreachable!() };
        let mut inside = Inside::new().await;
        let one = inside.attach(&pods, first).await;
        let two = inside.attach(&pods, second).await;
        inside.attacher.recheck(&mut inside.kernel).await;
        // Were anything of ours open in it, the namespace would live on, and with it both ends of the veth.
        run("ip", &["netns", "del", &first.netns]);
        let started = Instant::now();
        while try_run("ip", &["-n", &net.host, "link", "show", &first.veth]).status.success() {
            assert!(started.elapsed() < Duration::from_secs(10), "the pod's namespace is held");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let done = inside.attacher.recheck(&mut inside.kernel).await;
        assert!(matches!(done.as_slice(), [(id, Err(AttachError::Gone(_)))] if *id == one.id), "{done:?}");
        // Another namespace takes the file's place: not the pod's, and not touched.
        run("ip", &["netns", "del", &second.netns]);
        run("ip", &["netns", "add", &second.netns]);
        let done = inside.attacher.recheck(&mut inside.kernel).await;
        assert!(matches!(done.as_slice(), [(id, Err(AttachError::Gone(_)))] if *id == two.id), "{done:?}");
        assert_eq!(inside.kernel.rule_count().unwrap(), 0);
        inside.attacher.detach_all(&mut inside.kernel).await.unwrap();
    });
}

#[test]
fn filters_that_somebody_took_off_are_told() {
    test("filters_that_somebody_took_off_are_told", &[], |net| async move {
        let pods = reachable(&net, 1);
        let pod = &pods.pods[0];
        let mut inside = Inside::new().await;
        let interface = inside.attach(&pods, pod).await;
        run("ip", &["netns", "exec", &pod.netns, "tc", "qdisc", "del", "dev", "eth0", "clsact"]);
        let done = inside.attacher.recheck(&mut inside.kernel).await;
        assert!(
            matches!(done.as_slice(), [(id, Err(AttachError::Gone(_)))] if *id == interface.id),
            "{done:?}"
        );
        inside.attach(&pods, pod).await;
        exchange(pod, b"asks", b"answers");
        assert!(inside.events().iter().any(|(_, packet)| packet.ends_with(b"answers")));
        inside.attacher.detach_all(&mut inside.kernel).await.unwrap();
    });
}

#[test]
fn leftovers_inside_pods_are_swept_from_their_home_alone() {
    test("leftovers_inside_pods_are_swept_from_their_home_alone", &[], |net| async move {
        let pods = reachable(&net, 2);
        let [first, second] = pods.pods.as_slice() else { unreachable!() };
        let before = [tc_state(first), tc_state(second)];
        // As the runtime's folder has it, with a file whose mount is gone, and the host's own.
        let folder: PathBuf = pods.paths.cni_cache.parent().unwrap().join("netns");
        std::fs::create_dir(&folder).unwrap();
        for name in [&first.netns, &second.netns, &net.host] {
            std::os::unix::fs::symlink(format!("/run/netns/{name}"), folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("gone"), "").unwrap();

        let dead = child::attach_in("eth0", &format!("/run/netns/{}", first.netns));
        let alive = child::attach_in("eth0", &format!("/run/netns/{}", second.netns));
        let attacher = Attacher::new().await.unwrap();
        assert_eq!(attacher.sweep_inside(&folder).await.unwrap(), (Swept::default(), 0), "both live");
        drop(dead);
        assert_ne!(tc_state(first), before[0], "kill -9 left nothing: this test proves nothing");
        // Nobody else can tell whether they live.
        let elsewhere = folder.clone();
        let in_pod = thread_in(&first.netns, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let attacher = Attacher::new().await.unwrap();
                (attacher.sweep().await.unwrap(), attacher.sweep_inside(&elsewhere).await.unwrap())
            })
        });
        assert_eq!(in_pod.join().unwrap(), (Swept::default(), (Swept::default(), 0)));

        let swept = attacher.sweep_inside(&folder).await.unwrap();
        assert_eq!(swept, (Swept { filters: 2, qdiscs: 1 }, 0));
        assert_eq!(tc_state(first), before[0]);
        assert_ne!(tc_state(second), before[1], "a living instance's filters were removed");
        // Where the folder has no file of it, attaching sweeps.
        drop(alive);
        let mut inside = Inside::new().await;
        inside.attach(&pods, second).await;
        assert_eq!(tc_state(second).matches("clovisor-").count(), 2, "{}", tc_state(second));
        inside.attacher.detach_all(&mut inside.kernel).await.unwrap();
        assert_eq!(tc_state(second), before[1]);
    });
}

#[test]
fn the_interface_inside_is_found_without_a_pair_and_without_the_cache() {
    test("the_interface_inside_is_found_without_a_pair_and_without_the_cache", &[], |net| async move {
        let pods = Pods::new(&net, 2);
        let [first, second] = pods.pods.as_slice() else { unreachable!() };
        let finder = PodInterfaces::new(pods.paths.clone()).await.unwrap();
        // The veth is gone, and a macvlan has its address.
        ip_batch(
            &net.host,
            &format!(
                "link del {}\nlink add base0 type veth peer name base1\nlink set base0 up\nlink set base1 up\n\
                 link add link base0 name net7 netns {} type macvlan mode bridge\n",
                first.veth, first.netns
            ),
        );
        ip_batch(&first.netns, &format!("link set net7 up\naddr add {}/32 dev net7\n", first.address));
        let host = finder.find(&first.wanted()).await.unwrap_err();
        assert!(matches!(host, VethError::Unsupported { .. }), "{host}");
        let mut snapshot = finder.snapshot().await.unwrap();
        let found = snapshot.find_inside(&first.wanted(), 7).await.unwrap();
        assert_eq!((found.interface.name.as_str(), found.interface.id), ("net7", 7));
        // No address is known, and the name in the cache is of no interface there.
        let unknown = snapshot.find_inside(&Wanted { addresses: &[], ..first.wanted() }, 7).await;
        assert!(matches!(unknown, Err(VethError::NotYet { .. })), "{unknown:?}");
        let by_name = snapshot.find_inside(&Wanted { addresses: &[], ..second.wanted() }, 7).await.unwrap();
        assert_eq!((by_name.interface.name.as_str(), by_name.has_address), ("eth0", None));
        // Only its veth leads there.
        pods.forget(second);
        let mut snapshot = finder.snapshot().await.unwrap();
        let found = snapshot.find_inside(&second.wanted(), 7).await.unwrap();
        assert_eq!((found.interface.name.as_str(), found.found), ("eth0", Found::Address));
        // The host's own network.
        pods.add_process(5, &format!("0::/kubepods/pod{}/a\n", second.uid), "/proc/thread-self/ns/net");
        let host = finder.snapshot().await.unwrap().find_inside(&second.wanted(), 7).await;
        assert!(matches!(host, Err(VethError::HostNetwork { .. })), "{host:?}");
    });
}
