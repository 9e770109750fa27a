//! An interface that cannot be attached anew is not given up, one that is gone is, and an index that was given
//! to a new interface does not hinder it.

use clovisor::datapath::attach::{AttachError, Way};
use clovisor::datapath::packets::DEFAULT_BUFFER;

use aya::programs::TcAttachType;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use clovisor_common::name;

use crate::buffers::test;
use crate::foreign::Foreign;
use crate::traffic::Traced;

/// Our own program on the hook, by a link that the attacher does not know.
fn occupy(traced: &mut Traced, interface: &str) -> SchedClassifierLink {
    let program = traced.kernel.program(name::INGRESS).unwrap();
    let options = TcAttachOptions::TcxOrder(LinkOrder::last());
    let id = program.attach_with_options(interface, TcAttachType::Ingress, options).unwrap();
    program.take_link(id).unwrap()
}

#[test]
fn an_interface_that_is_lost_is_taken_back() {
    test("an_interface_that_is_lost_is_taken_back", &[], |net| async move {
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        traced.attach(Way::Auto).await;
        // tcx is wanted, for a foreign tcx program is there, and our own programs are on the hooks already, by
        // links that another holds: the kernel takes a program once a hook.
        let foreign = Foreign::tcx("veth0", LinkOrder::first);
        let in_the_way = occupy(&mut traced, "veth0");
        let done = traced.attacher.recheck(&mut traced.kernel).await;
        assert!(matches!(done.as_slice(), [(_, Err(AttachError::Tcx { .. }))]), "{done:?}");
        assert_eq!((traced.attacher.attached().count(), traced.attacher.lost().count()), (0, 1));
        assert!(traced.attacher.recheck(&mut traced.kernel).await.is_empty(), "it is said once");
        drop(in_the_way);
        // A process that another test has just forked may hold the link for a moment more.
        let mut done = Vec::new();
        for _ in 0..100 {
            done = traced.attacher.recheck(&mut traced.kernel).await;
            if !done.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(matches!(done.as_slice(), [(_, Ok(_))]), "{done:?}");
        assert_eq!((traced.attacher.attached().count(), traced.attacher.lost().count()), (1, 0));
        assert!(traced.sees(&net));
        assert!(foreign.seen() > 0);
        assert!(traced.attacher.recheck(&mut traced.kernel).await.is_empty());
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
    });
}

#[test]
fn an_interface_that_is_gone_is_told_once_and_forgotten() {
    for way in [Way::Auto, Way::Clsact, Way::Tcx] {
        test("an_interface_that_is_gone_is_told_once_and_forgotten", &[], move |net| async move {
            let mut traced = Traced::new(DEFAULT_BUFFER).await;
            traced.attach(way).await;
            assert!(traced.kernel.rule_count().unwrap() > 0);
            net.in_host(&["ip", "link", "set", "veth0", "down"]);
            net.in_host(&["ip", "link", "set", "veth0", "name", "other"]);
            assert!(traced.attacher.recheck(&mut traced.kernel).await.is_empty(), "renamed, {way:?}");
            assert_eq!(traced.attacher.attached().next().unwrap().interface.name, "other");
            net.in_host(&["ip", "link", "del", "other"]);
            let done = traced.attacher.recheck(&mut traced.kernel).await;
            assert!(matches!(done.as_slice(), [(_, Err(AttachError::Gone(_)))]), "{way:?}: {done:?}");
            assert!(traced.attacher.recheck(&mut traced.kernel).await.is_empty());
            assert_eq!(traced.attacher.attached().count() + traced.attacher.lost().count(), 0);
            assert_eq!(traced.kernel.rule_count().unwrap(), 0);
        });
    }
}

#[test]
fn an_index_that_is_used_again_can_be_attached() {
    for way in [Way::Auto, Way::Tcx] {
        test("an_index_that_is_used_again_can_be_attached", &[], move |net| async move {
            let mut traced = Traced::new(DEFAULT_BUFFER).await;
            traced.attach(way).await;
            let index = traced.interface.index.to_string();
            let again = |name: &str| {
                net.in_host(&[
                    "ip", "link", "add", name, "index", &index, "type", "veth", "peer", "name", "p0",
                ]);
            };
            net.in_host(&["ip", "link", "del", "veth0"]);
            again("veth0");
            let interface = traced.attacher.interface("veth0").await.unwrap();
            assert_eq!(interface.index, traced.interface.index);
            traced.attacher.attach(&mut traced.kernel, &interface, way).await.unwrap();
            let twice = traced.attacher.attach(&mut traced.kernel, &interface, way).await;
            assert!(matches!(twice, Err(AttachError::Already(_))), "{twice:?}");
            // Before the owner knows, by another name: not ours to attach.
            net.in_host(&["ip", "link", "del", "veth0"]);
            again("other");
            let done = traced.attacher.recheck(&mut traced.kernel).await;
            assert!(matches!(done.as_slice(), [(_, Err(AttachError::Gone(_)))]), "{done:?}");
            assert!(net.in_host(&["tc", "filter", "show", "dev", "other", "ingress"]).is_empty());
        });
    }
}
