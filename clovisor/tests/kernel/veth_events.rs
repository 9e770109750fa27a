//! Changes among the host's interfaces, as they happen.

use std::time::Duration;

use clovisor::datapath::veth::events::{Change, LinkEvents};

use crate::netns::{Net, test};
use crate::pods::{Pods, ip_batch};

/// Longer than any message takes; only a failing test waits as long.
const PATIENCE: Duration = Duration::from_secs(10);

async fn until(events: &LinkEvents, wanted: impl Fn(&Change) -> bool) -> Change {
    let wait = async {
        loop {
            let change = events.changed().await;
            if wanted(&change) {
                return change;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it was not told")
}

fn index(net: &Net, name: &str) -> u32 {
    let text = net.in_host(&["ip", "-o", "link", "show", name]);
    text.split(':').next().unwrap().parse().unwrap()
}

#[test]
fn pods_that_come_and_go_are_told() {
    test("pods_that_come_and_go_are_told", &[], |net| async move {
        let events = LinkEvents::new().await.unwrap();
        ip_batch(&net.host, "link add one type veth peer name two\nlink add bridge9 type bridge\n");
        assert!(until(&events, |_| true).await.gone.is_empty());
        let one = index(&net, "one");
        ip_batch(&net.host, "link set one master bridge9\nlink set one nomaster\nlink set two name three\n");
        let mut seen = until(&events, |_| true).await;
        while let Ok(more) = tokio::time::timeout(Duration::from_millis(200), events.changed()).await {
            seen.gone.extend(more.gone);
        }
        assert!(seen.gone.is_empty(), "leaving a bridge is not going: {seen:?}");
        ip_batch(&net.host, "link del one\n");
        let change = until(&events, |change| !change.gone.is_empty()).await;
        assert!(change.gone.contains(&one) && !change.resync, "{change:?}");
        // A namespace that goes takes the pair with it.
        let pods = Pods::new(&net, 1);
        let veth = index(&net, &pods.pods[0].veth);
        drop(pods);
        until(&events, |change| change.gone.contains(&veth)).await;
    });
}

#[test]
fn lost_messages_ask_for_a_resync() {
    test("lost_messages_ask_for_a_resync", &[], |net| async move {
        let events = LinkEvents::with_buffer(8192).await.unwrap();
        // Nobody reads meanwhile: the runtime has one thread, and this holds it.
        let pair = |number: u32| format!("link add a{number} type veth peer name b{number}\n");
        let commands: String = (0..50).map(pair).collect();
        ip_batch(&net.host, &commands);
        until(&events, |change| change.resync).await;
        // It goes on afterwards.
        let b0 = index(&net, "b0");
        ip_batch(&net.host, "link del a0\n");
        let change = until(&events, |change| change.gone.contains(&b0)).await;
        assert!(!change.ended);
    });
}
