//! Pods whose packets do not all pass the host's end of a veth: traced inside their network namespaces where the
//! agent may enter them, and said to be traced in part or not at all where it may not.

use std::{sync::Arc, time::Duration};

use crate::{
    beyond::Beyond,
    netns::{HOST_V4, Net, POD_V4, run, test},
    node::Node,
    server::PORT,
};

/// What the base deployment gives, and what its overlay `pod-side` gives.
const BASE: &str = "-all,+net_admin,+bpf,+perfmon";
const POD_SIDE: &str = "-all,+net_admin,+bpf,+perfmon,+sys_admin";
/// How long a warning that comes again would take to come again.
const AGAIN: Duration = Duration::from_secs(3);

/// A request from beyond the host, past the host's end of the pod's veth.
fn ask_from(beyond: &Beyond, path: &str) {
    let url = format!("http://{POD_V4}:{PORT}{path}");
    run("ip", &["netns", "exec", &beyond.name, "curl", "-s", "-m", "5", "-o", "/dev/null", &url]);
}

/// Gives host and pod macvlans in the place of their veth pair: no interface of the host leads to the pod.
fn without_pair(net: &Net) {
    net.in_host(&["ip", "link", "del", "veth0"]);
    net.in_host(&["ip", "link", "add", "base0", "type", "veth", "peer", "name", "base1"]);
    let macvlan = ["link", "base0", "type", "macvlan", "mode", "bridge"];
    net.in_host(&[&["ip", "link", "add", "veth0"][..], &macvlan].concat());
    net.in_host(&[&["ip", "link", "add", "eth0", "netns", &net.pod][..], &macvlan].concat());
    for device in ["base0", "base1", "veth0"] {
        net.in_host(&["ip", "link", "set", device, "up"]);
    }
    net.in_host(&["ip", "addr", "add", &format!("{HOST_V4}/24"), "dev", "veth0"]);
    net.in_pod(&["ip", "addr", "add", &format!("{POD_V4}/24"), "dev", "eth0"]);
    net.in_pod(&["ip", "link", "set", "eth0", "up"]);
}

fn has_line(node: &Node, line: &str) -> bool {
    node.http("/metrics").lines().any(|found| found == line)
}

fn is_complete(node: &Node, path: &str) -> bool {
    node.span(path).is_some_and(|span| span["attributes"]["clovisor.outcome"] == "complete")
}

#[test]
fn a_pod_that_is_passed_by_is_traced_inside() {
    let name = "a_pod_that_is_passed_by_is_traced_inside";
    test(name, &["nginx", "curl", "setpriv"], async move |net| {
        let beyond = Beyond::new(&net);
        let node = Node::new(name, Arc::clone(&net)).await;
        let Some(node) = node else { return };
        let inside_before = net.in_pod(&["tc", "qdisc", "show"]);
        let agent = node.run_with(POD_SIDE);
        node.until("attached", Node::is_attached).await;
        ask_from(&beyond, "/forwarded");
        node.until("a span of what is forwarded", |node| is_complete(node, "/forwarded")).await;

        let _foreign = Beyond::deliver(&net);
        // The first one alone is too few to be told by, and so cannot be seen inside.
        ask_from(&beyond, "/passed-by");
        node.until("attached inside", |node| {
            ask_from(&beyond, "/passed-by-again");
            // As kubelet's probes: seen both ways.
            node.ask("/probe");
            node.is_attached_inside() && !node.is_attached()
        })
        .await;
        assert!(!is_complete(&node, "/passed-by"), "it was seen: this test proves nothing");
        node.until("the metric", |node| has_line(node, "clovisor_interfaces_attached{side=\"pod\"} 1")).await;
        ask_from(&beyond, "/inside");
        node.until("a whole span", |node| is_complete(node, "/inside")).await;
        let span = node.span("/inside").unwrap();
        assert_eq!(span["resource"]["service.name"], "shop");
        node.ask("/probe-inside");
        node.until("a whole span of a probe", |node| is_complete(node, "/probe-inside")).await;
        assert!(has_line(&node, "clovisor_pods_one_sided 0"));

        // The pod is relabelled, and comes back where it was.
        node.put_pod("default", "shop2");
        node.redis.cli(&["set", "clovisor_labels", "default:app:shop"]);
        node.until("detached", |node| !node.is_attached_inside()).await;
        node.put_pod("default", "shop");
        node.until("attached again", |node| node.is_attached() || node.is_attached_inside()).await;
        assert_eq!(agent.terminate().await, Some(0));
        assert_eq!(net.in_pod(&["tc", "qdisc", "show"]), inside_before);
        assert!(!node.is_attached());
    });
}

#[test]
fn where_the_inside_is_taken_the_host_s_end_is_kept() {
    let name = "where_the_inside_is_taken_the_host_s_end_is_kept";
    test(name, &["nginx", "curl", "setpriv"], async move |net| {
        let beyond = Beyond::new(&net);
        let Some(node) = Node::new(name, Arc::clone(&net)).await else { return };
        let _foreign = Beyond::deliver(&net);
        // It sits where clsact goes.
        net.in_pod(&["tc", "qdisc", "add", "dev", "eth0", "ingress"]);
        let agent = node.run_with(POD_SIDE);
        node.until("attached", Node::is_attached).await;
        node.until("back from inside", |node| {
            ask_from(&beyond, "/passed-by");
            node.log().contains("back to the host's end")
        })
        .await;
        node.until("attached again", Node::is_attached).await;
        node.until("the status", |node| node.status("pods_one_sided") == "1").await;
        tokio::time::sleep(AGAIN).await;
        assert_eq!(node.log().matches("back to the host's end").count(), 1);
        assert_eq!(agent.terminate().await, Some(0));
        assert!(!node.is_attached());
    });
}

#[test]
fn a_pod_without_a_veth_is_traced_inside_and_swept() {
    let name = "a_pod_without_a_veth_is_traced_inside_and_swept";
    test(name, &["nginx", "curl", "setpriv"], async move |net| {
        without_pair(&net);
        let Some(node) = Node::new(name, Arc::clone(&net)).await else { return };
        let before = net.in_pod(&["tc", "qdisc", "show"]);
        let agent = node.run_with(POD_SIDE);
        node.until("attached inside", Node::is_attached_inside).await;
        node.ask("/served");
        node.until("the server's span", |node| is_complete(node, "/served")).await;
        node.redis.cli(&["set", "clovisor_egress_match", &format!("0:{}", crate::node::OUTSIDE)]);
        node.until("configuration 2", |node| node.status("config_version") == "2").await;
        node.ask_outside("/asked");
        node.until("the client's span", |node| is_complete(node, "/asked")).await;
        let span = node.span("/asked").unwrap();
        assert_eq!((&span["kind"], &span["resource"]["service.name"]), (&3.into(), &"shop".into()));
        assert_eq!(node.status("interfaces"), "1");

        // Killed: its filters stay, until the next start.
        drop(agent);
        assert!(node.is_attached_inside());
        let agent = node.run_with(POD_SIDE);
        node.until("swept", |node| node.log().contains("killed instance had left")).await;
        node.until("attached again", Node::is_attached_inside).await;
        node.ask("/after");
        node.until("a span after", |node| is_complete(node, "/after")).await;
        node.api.delete("pods", "web-1");
        node.until("detached", |node| !node.is_attached_inside()).await;
        assert_eq!(net.in_pod(&["tc", "qdisc", "show"]), before);
        assert_eq!(agent.terminate().await, Some(0));
    });
}

#[test]
fn without_the_right_to_enter_it_is_said_what_is_not_seen() {
    let name = "without_the_right_to_enter_it_is_said_what_is_not_seen";
    test(name, &["nginx", "curl", "setpriv"], async move |net| {
        let beyond = Beyond::new(&net);
        let Some(node) = Node::new(name, Arc::clone(&net)).await else { return };
        let _foreign = Beyond::deliver(&net);
        let agent = node.run_with(BASE);
        node.until("attached", Node::is_attached).await;
        let warning = "default/web-1: most of what goes to it is not seen";
        node.until("the warning", |node| {
            ask_from(&beyond, "/passed-by");
            node.log().contains(warning)
        })
        .await;
        assert!(node.log().contains("deploy/overlays/pod-side"), "{}", node.log());
        node.until("the status", |node| node.status("pods_one_sided") == "1").await;
        assert!(has_line(&node, "clovisor_pods_one_sided 1"));
        tokio::time::sleep(AGAIN).await;
        assert_eq!(node.log().matches(warning).count(), 1);
        // What does pass is still traced.
        assert!(node.is_attached() && !node.is_attached_inside());
        node.ask("/from-the-host");
        node.until("a span of the host's", |node| is_complete(node, "/from-the-host")).await;
        assert_eq!(agent.terminate().await, Some(0));
    });
}

#[test]
fn without_the_right_to_enter_a_pod_without_a_veth_is_told() {
    let name = "without_the_right_to_enter_a_pod_without_a_veth_is_told";
    test(name, &["nginx", "curl", "setpriv"], async move |net| {
        without_pair(&net);
        let Some(node) = Node::new(name, Arc::clone(&net)).await else { return };
        let agent = node.run_with(BASE);
        node.until("the warning", |node| node.log().contains("deploy/overlays/pod-side")).await;
        node.until("the status", |node| node.status("pods_pending") == "1").await;
        assert!(!node.is_attached() && !node.is_attached_inside());
        assert_eq!(agent.terminate().await, Some(0));
    });
}
