//! Staying first by what the kernel tells of changes: nothing is asked where nothing has changed, whatever changes is seen to
//! at the next look, and so is, in turn, what was not told.
//!
//! Counts of requests and of looks decide, no time does.

use std::time::Duration;

use aya::programs::links::LinkOrder;
use clovisor::datapath::attach::{AttachError, Attached, Attacher, How, TURN, Way};
use clovisor::datapath::interface::Interface;
use clovisor::datapath::kernel::Kernel;
use clovisor::datapath::packets::SMALLEST_BUFFER;

use crate::buffers::{buffers, test};
use crate::foreign::Foreign;
use crate::netns::Net;
use crate::pods::Pods;

/// More than one has its turn at each look.
const COUNT: u32 = 65;
/// A name, and what is on each of two hooks.
const A_LOOK: u64 = 3;

struct Node {
    kernel: Kernel,
    attacher: Attacher,
    interfaces: Vec<Interface>,
    pods: Pods,
}

impl Node {
    /// All attached, and of which the kernel has nothing more to tell.
    async fn at_rest(net: &Net) -> Self {
        let pods = Pods::new(net, COUNT);
        let mut kernel = Kernel::load(buffers(SMALLEST_BUFFER), false).unwrap();
        let mut attacher = Attacher::new().await.unwrap();
        let mut interfaces = Vec::new();
        for pod in &pods.pods {
            let interface = attacher.interface(&pod.veth).await.unwrap();
            let attached = attacher.attach(&mut kernel, &interface, Way::Auto).await.unwrap();
            assert_eq!((attached.how, attached.first), (How::Clsact, true));
            interfaces.push(interface);
        }
        let mut node = Self { kernel, attacher, interfaces, pods };
        node.rest().await;
        node
    }

    /// What attaching changed is told once; links that came up may be told a moment later.
    async fn rest(&mut self) {
        for _ in 0..100 {
            let (done, requests) = self.look().await;
            assert!(done.is_empty(), "{done:?}");
            if requests == turn() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never comes to rest");
    }

    /// One look: what was done, and how many requests it took.
    async fn look(&mut self) -> (Vec<(u32, Result<Attached, AttachError>)>, u64) {
        let before = self.attacher.asked().requests;
        let done = self.attacher.recheck(&mut self.kernel).await;
        (done, self.attacher.asked().requests - before)
    }

    async fn end(mut self) {
        self.attacher.detach_all(&mut self.kernel).await.unwrap();
    }
}

/// Requests of a look at which only those are looked at whose turn it is.
fn turn() -> u64 {
    u64::from(COUNT).div_ceil(TURN as u64) * A_LOOK
}

/// tc's own bytecode in front of ours: the kernel puts the newest of a pref first.
fn put_in_front(net: &Net, interface: &Interface) {
    let dev = ["tc", "filter", "add", "dev", &interface.name, "ingress"];
    let filter = ["pref", "1", "protocol", "all", "bpf", "da", "bytecode", "1,6 0 0 0,"];
    net.in_host(&[&dev[..], &filter].concat());
}

/// The interfaces that were attached anew.
fn anew(done: &[(u32, Result<Attached, AttachError>)]) -> Vec<u32> {
    let is_first = |result: &Result<Attached, _>| result.as_ref().is_ok_and(|attached| attached.first);
    assert!(done.iter().all(|(_, result)| is_first(result)), "{done:?}");
    done.iter().map(|(index, _)| *index).collect()
}

#[test]
fn at_rest_only_those_are_looked_at_whose_turn_it_is() {
    test("at_rest_only_those_are_looked_at_whose_turn_it_is", &[], |net| async move {
        let mut node = Node::at_rest(&net).await;
        for _ in 0..2 * TURN {
            let (done, requests) = node.look().await;
            assert!(done.is_empty(), "{done:?}");
            assert_eq!(requests, turn(), "nothing has changed");
        }
        node.end().await;
    });
}

#[test]
fn whatever_comes_in_front_is_seen_to_at_the_next_look() {
    test("whatever_comes_in_front_is_seen_to_at_the_next_look", &[], |net| async move {
        let mut node = Node::at_rest(&net).await;
        let at = |number: usize| node.interfaces[number].clone();
        let [filter, filter_too, qdisc, link, tcx] = [at(0), at(64), at(17), at(31), at(48)];
        put_in_front(&net, &filter);
        put_in_front(&net, &filter_too);
        assert_eq!(anew(&node.look().await.0), [filter.index, filter_too.index]);
        // Attaching them anew was a change of our own, which leads to no other.
        node.rest().await;

        net.in_host(&["tc", "qdisc", "del", "dev", &qdisc.name, "clsact"]);
        assert_eq!(anew(&node.look().await.0), [qdisc.index]);
        node.rest().await;

        net.in_host(&["ip", "link", "del", &link.name]);
        let (done, _) = node.look().await;
        assert!(
            matches!(done.as_slice(), [(index, Err(AttachError::Gone(_)))] if *index == link.index),
            "{done:?}"
        );

        // Of tcx the kernel tells nothing.
        let foreign = Foreign::tcx(&tcx.name, LinkOrder::first);
        let (done, _) = node.look().await;
        assert_eq!(anew(&done), [tcx.index]);
        assert!(done[0].1.as_ref().is_ok_and(|attached| attached.how == How::Tcx));
        let later = Foreign::tcx(&tcx.name, LinkOrder::first);
        assert_eq!(anew(&node.look().await.0), [tcx.index]);
        drop((foreign, later));
        node.end().await;
    });
}

#[test]
fn where_the_kernel_has_told_too_much_all_are_looked_at() {
    test("where_the_kernel_has_told_too_much_all_are_looked_at", &[], |net| async move {
        let mut node = Node::at_rest(&net).await;
        // At another interface, more than any buffer holds.
        let filter =
            "filter add dev veth0 ingress pref 7 protocol all bpf da bytecode \"1,6 0 0 0,\"\n".repeat(4_000);
        let file = node.pods.paths.cni_cache.join("../flood");
        std::fs::write(&file, format!("qdisc add dev veth0 clsact\n{filter}")).unwrap();
        net.in_host(&["tc", "-batch", file.to_str().unwrap()]);
        let interface = node.interfaces[40].clone();
        put_in_front(&net, &interface);
        let (done, requests) = node.look().await;
        assert_eq!(anew(&done), [interface.index]);
        assert!(
            requests >= u64::from(COUNT) * A_LOOK,
            "{requests} requests: nothing was lost, this test proves nothing"
        );
        node.rest().await;
        node.end().await;
    });
}

#[test]
fn what_was_not_told_is_seen_to_in_turn() {
    test("what_was_not_told_is_seen_to_in_turn", &[], |net| async move {
        let mut node = Node::at_rest(&net).await;
        let mut waiting = Vec::new();
        for number in [0, 9, 33, 64] {
            put_in_front(&net, &node.interfaces[number]);
            waiting.push(node.interfaces[number].index);
        }
        net.in_host(&["ip", "link", "del", &node.interfaces[50].name]);
        waiting.push(node.interfaces[50].index);
        node.attacher.lose_changes();
        for looks in 1..=TURN {
            let before = waiting.len();
            let (done, _) = node.look().await;
            for (index, result) in &done {
                assert!(matches!(result, Ok(_) | Err(AttachError::Gone(_))), "{result:?}");
                waiting.retain(|one| one != index);
            }
            if before != waiting.len() {
                println!("{} seen to at look {looks}", before - waiting.len());
            }
            assert!(looks > 1 || !waiting.is_empty(), "the kernel told it: this test proves nothing");
        }
        assert_eq!(waiting, Vec::<u32>::new());
        node.end().await;
    });
}
