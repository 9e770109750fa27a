//! Attaching among others: first in the chain, nobody else's program harmed, nothing left behind.

use aya::programs::links::LinkOrder;
use clovisor::datapath::attach::{AttachError, Attacher, How, Swept, Way};
use clovisor::datapath::kernel::Kernel;
use clovisor::datapath::packets::{DEFAULT_BUFFER, SMALLEST_BUFFER};

use crate::buffers::{buffers, test};
use crate::child;
use crate::foreign::{Foreign, add_bpf, add_u32};
use crate::netns::Net;
use crate::traffic::Traced;

/// tc's report without its counters, which change with every packet.
fn shape(net: &Net) -> Vec<String> {
    let state = net.tc_state();
    let lines = state.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.contains("Sent ") && !line.contains("backlog")).map(str::to_owned).collect()
}

#[test]
fn attaching_and_detaching_leaves_no_trace() {
    test("attaching_and_detaching_leaves_no_trace", &[], |net| async move {
        let before = shape(&net);
        for (way, how) in [(Way::Auto, How::Clsact), (Way::Clsact, How::Clsact), (Way::Tcx, How::Tcx)] {
            let mut traced = Traced::new(DEFAULT_BUFFER).await;
            let attached = traced.attach(way).await;
            assert_eq!((attached.how, attached.first), (how, true), "{way:?}");
            assert!(traced.sees(&net), "{way:?}");
            let again = traced.attacher.attach(&mut traced.kernel, &traced.interface, way).await;
            assert!(matches!(again, Err(AttachError::Already(_))));
            assert!(traced.attacher.recheck(&mut traced.kernel).await.is_empty(), "{way:?}");
            traced.attacher.detach(&mut traced.kernel, traced.interface.index).await.unwrap();
            assert_eq!(shape(&net), before, "{way:?}");
        }
    });
}

#[test]
fn a_foreign_clsact_and_its_filters_stay() {
    test("a_foreign_clsact_and_its_filters_stay", &[], |net| async move {
        net.in_host(&["tc", "qdisc", "add", "dev", "veth0", "clsact"]);
        let empty = shape(&net);
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        assert!(traced.attach(Way::Auto).await.first);
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
        assert_eq!(shape(&net), empty, "an empty clsact of somebody else was touched");

        let foreign = Foreign::clsact("veth0", 1);
        let before = shape(&net);
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        let attached = traced.attach(Way::Auto).await;
        assert_eq!((attached.how, attached.first), (How::Clsact, true));
        let seen = foreign.seen();
        assert!(traced.sees(&net), "behind a foreign filter that ends the chain");
        assert!(foreign.seen() > seen, "the foreign filter no longer runs");
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
        assert_eq!(shape(&net), before);
    });
}

#[test]
fn a_filter_added_later_in_front_is_overtaken() {
    test("a_filter_added_later_in_front_is_overtaken", &[], |net| async move {
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        traced.attach(Way::Auto).await;
        let foreign = Foreign::clsact("veth0", 5);
        assert!(traced.attacher.recheck(&mut traced.kernel).await.is_empty(), "it is behind");
        assert!(traced.sees(&net));
        assert!(foreign.seen() > 0, "the filter behind ours no longer runs");
        // The kernel puts the newest bpf filter of a pref in front.
        add_bpf(&net, "1");
        assert!(!traced.sees(&net), "the kernel changed its order: this test proves nothing");
        let done = traced.attacher.recheck(&mut traced.kernel).await;
        assert!(matches!(done.as_slice(), [(_, Ok(attached))] if attached.first), "{done:?}");
        assert!(traced.sees(&net));
        // Ours and the qdisc that we made: the qdisc stays, for it holds the others' filters.
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
        for hook in ["ingress", "egress"] {
            let left = net.filters(hook);
            assert!(
                left.contains("pref 5") && left.contains("bytecode") && !left.contains("clovisor"),
                "{left}"
            );
        }
    });
}

#[test]
fn a_first_place_that_cannot_be_shared_makes_auto_take_tcx() {
    test("a_first_place_that_cannot_be_shared_makes_auto_take_tcx", &[], |net| async move {
        net.in_host(&["tc", "qdisc", "add", "dev", "veth0", "clsact"]);
        add_u32(&net, "1");
        let before = shape(&net);
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        let attached = traced.attach(Way::Auto).await;
        assert_eq!((attached.how, attached.first), (How::Tcx, true));
        assert!(traced.sees(&net));
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();

        let attached = traced.attach(Way::Clsact).await;
        assert_eq!((attached.how, attached.first), (How::Clsact, false), "it must say that it is not first");
        assert!(!traced.sees(&net));
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
        assert_eq!(shape(&net), before);
    });
}

#[test]
fn an_ingress_qdisc_is_left_alone() {
    test("an_ingress_qdisc_is_left_alone", &[], |net| async move {
        net.in_host(&["tc", "qdisc", "add", "dev", "veth0", "ingress"]);
        let before = shape(&net);
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        let refused = traced.attacher.attach(&mut traced.kernel, &traced.interface, Way::Clsact).await;
        assert!(matches!(refused, Err(AttachError::Occupied { .. })), "{refused:?}");
        assert_eq!(shape(&net), before);
        assert_eq!(traced.attach(Way::Auto).await.how, How::Tcx);
        assert!(traced.sees(&net));
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
        assert_eq!(shape(&net), before);
    });
}

#[test]
fn a_foreign_tcx_program_does_not_hide_packets() {
    test("a_foreign_tcx_program_does_not_hide_packets", &[], |net| async move {
        let foreign = Foreign::tcx("veth0", LinkOrder::first);
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        let attached = traced.attach(Way::Auto).await;
        assert_eq!((attached.how, attached.first), (How::Tcx, true));
        assert!(traced.sees(&net));
        let seen = foreign.seen();
        assert!(seen > 0, "the foreign program no longer runs");
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();

        let attached = traced.attach(Way::Clsact).await;
        assert!(!attached.first, "it must say that it is behind tcx");
        assert!(!traced.sees(&net));
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
        assert!(foreign.seen() > seen);
    });
}

#[test]
fn a_foreign_tcx_program_that_comes_later_is_overtaken() {
    test("a_foreign_tcx_program_that_comes_later_is_overtaken", &[], |net| async move {
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        assert_eq!(traced.attach(Way::Auto).await.how, How::Clsact);
        for how_it_comes in [LinkOrder::last, LinkOrder::first] {
            let foreign = Foreign::tcx("veth0", how_it_comes);
            let done = traced.attacher.recheck(&mut traced.kernel).await;
            assert!(traced.sees(&net), "{done:?} {:?}", traced.attacher.attached().collect::<Vec<_>>());
            assert!(foreign.seen() > 0);
            assert_eq!(traced.attacher.attached().map(|a| a.how).collect::<Vec<_>>(), [How::Tcx]);
            assert!(traced.attacher.recheck(&mut traced.kernel).await.is_empty(), "all is well");
        }
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
    });
}

#[test]
fn leftovers_of_the_dead_are_swept_and_the_living_are_left_alone() {
    test("leftovers_of_the_dead_are_swept_and_the_living_are_left_alone", &[], |net| async move {
        let before = shape(&net);
        let first = child::attach("veth0");
        let second = child::attach("veth0");
        let attacher = Attacher::new().await.unwrap();
        assert_eq!(attacher.sweep().await.unwrap(), Swept::default(), "both live");

        drop(first);
        assert_eq!(attacher.sweep().await.unwrap(), Swept { filters: 2, qdiscs: 0 });
        let left = net.filters("ingress");
        assert_eq!(left.matches("clovisor-").count(), 1, "{left}");

        drop(second);
        add_bpf(&net, "7");
        assert_eq!(attacher.sweep().await.unwrap(), Swept { filters: 2, qdiscs: 0 });
        assert!(net.filters("ingress").contains("bytecode"), "a foreign filter was removed");
        for hook in ["ingress", "egress"] {
            net.in_host(&["tc", "filter", "del", "dev", "veth0", hook]);
        }
        net.in_host(&["tc", "qdisc", "del", "dev", "veth0", "clsact"]);

        drop(child::attach("veth0"));
        assert_ne!(shape(&net), before, "kill -9 left nothing: this test proves nothing");
        assert_eq!(attacher.sweep().await.unwrap(), Swept { filters: 2, qdiscs: 1 });
        assert_eq!(shape(&net), before);
    });
}

#[test]
fn two_instances_see_the_same_packets_and_the_last_cleans_up() {
    test("two_instances_see_the_same_packets_and_the_last_cleans_up", &[], |net| async move {
        let before = shape(&net);
        let mut one = Traced::new(DEFAULT_BUFFER).await;
        one.attach(Way::Auto).await;
        let mut two = Traced::new(DEFAULT_BUFFER).await;
        assert!(two.attach(Way::Auto).await.first);
        assert!(one.sees(&net) && two.sees(&net));
        for traced in [&mut one, &mut two] {
            assert!(traced.attacher.recheck(&mut traced.kernel).await.is_empty(), "they fight each other");
        }
        one.attacher.detach_all(&mut one.kernel).await.unwrap();
        assert!(two.sees(&net));
        two.attacher.detach_all(&mut two.kernel).await.unwrap();
        assert_eq!(shape(&net), before, "the one that made the qdisc left first, the other cleans up");
    });
}

#[test]
fn an_interface_that_vanishes_is_no_error() {
    test("an_interface_that_vanishes_is_no_error", &[], |net| async move {
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        traced.attach(Way::Auto).await;
        net.in_host(&["ip", "link", "del", "veth0"]);
        assert!(traced.attacher.recheck(&mut traced.kernel).await.iter().all(|(_, result)| result.is_err()));
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
        let mut kernel = Kernel::load(buffers(SMALLEST_BUFFER), false).unwrap();
        let gone = traced.attacher.attach(&mut kernel, &traced.interface, Way::Auto).await;
        assert!(gone.is_err());
    });
}
