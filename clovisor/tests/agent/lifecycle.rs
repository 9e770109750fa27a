//! The agent, Redis and the API server end and begin again; nothing is left behind, nothing is lost that need not be.

use crate::{netns::test, node::Node};

#[test]
fn redis_and_the_api_server_may_go() {
    let name = "redis_and_the_api_server_may_go";
    test(name, &["nginx", "curl"], async move |net| {
        let Some(mut node) = Node::new(name, net).await else { return };
        node.redis.cli(&["set", "clovisor_labels", "default:app:shop"]);
        let _agent = node.run();
        node.until("attached", Node::is_attached).await;

        node.redis.kill();
        node.api.down().await;
        node.until("both missed", |node| {
            let metrics = node.http("/metrics");
            metrics.contains("clovisor_redis_up 0") && metrics.contains("clovisor_kubernetes_up 0")
        })
        .await;
        assert_eq!((node.http("/healthz"), node.http("/readyz")), ("ok\n".to_owned(), "ok\n".to_owned()));
        node.ask("/meanwhile");
        node.until("a span meanwhile", |node| node.span("/meanwhile").is_some()).await;

        // What changed while nobody listened is in force once they are back.
        node.api.up().await;
        node.redis.start();
        node.redis.cli(&["set", "clovisor_labels", "default:app:else"]);
        node.until("detached", |node| !node.is_attached()).await;
        node.put_pod("default", "else");
        node.until("attached again", Node::is_attached).await;
    });
}

#[test]
fn nothing_is_left_on_interfaces() {
    let name = "nothing_is_left_on_interfaces";
    test(name, &["nginx", "curl"], async move |net| {
        let before = net.tc_state();
        let Some(node) = Node::new(name, std::sync::Arc::clone(&net)).await else { return };
        let agent = node.run();
        node.until("attached", Node::is_attached).await;
        assert_eq!(agent.terminate().await, Some(0));
        assert_eq!(net.tc_state(), before);

        // Killed: its filters stay, until the next start.
        let agent = node.run();
        node.until("attached", Node::is_attached).await;
        drop(agent);
        assert!(node.is_attached());
        let agent = node.run();
        node.until("swept", |node| node.log().contains("killed instance had left")).await;
        node.until("ready", |node| node.http("/readyz") == "ok\n").await;
        node.ask("/after");
        node.until("a span after", |node| node.span("/after").is_some()).await;

        // The pod goes, as the cluster tells.
        node.api.delete("pods", "web-1");
        node.until("detached", |node| !node.is_attached()).await;
        assert_eq!(net.tc_state(), before);
        assert_eq!(agent.terminate().await, Some(0));
    });
}

#[test]
fn a_flood_of_changes_does_not_stop_it() {
    let name = "a_flood_of_changes_does_not_stop_it";
    test(name, &["nginx", "curl"], async move |net| {
        let Some(node) = Node::new(name, net).await else { return };
        let _agent = node.run();
        node.until("attached", Node::is_attached).await;
        // News from the cluster and from Redis come while the agent is still at work on those before.
        for round in 0..300 {
            node.put_pod("default", if round % 2 == 0 { "else" } else { "shop" });
            if round % 10 == 0 {
                node.redis.cli(&["set", "clovisor_egress_match", &format!("0:{}", 1000 + round)]);
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        node.until("it still answers", |node| node.http("/healthz") == "ok\n").await;
        node.ask("/after-the-flood");
        node.until("a span after it", |node| node.span("/after-the-flood").is_some()).await;
        let span = node.span("/after-the-flood").unwrap();
        assert_eq!(span["resource"]["service.name"], "shop");
    });
}
