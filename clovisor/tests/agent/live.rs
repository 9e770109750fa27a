//! What is traced, and how it is named, follows cluster and configuration while the agent runs.

use crate::{
    netns::test,
    node::{Node, OUTSIDE},
};

#[test]
fn names_come_from_the_cluster_and_rules_from_redis() {
    let name = "names_come_from_the_cluster_and_rules_from_redis";
    test(name, &["nginx", "curl"], async move |net| {
        let Some(node) = Node::new(name, net).await else { return };
        let agent = node.run();
        node.until("attached", |node| node.http("/readyz") == "ok\n" && node.is_attached()).await;

        node.ask("/served");
        node.until("the server's span", |node| node.span("/served").is_some()).await;
        let span = node.span("/served").unwrap();
        assert_eq!((&span["kind"], &span["attributes"]["clovisor.outcome"]), (&2.into(), &"complete".into()));
        for (key, value) in [
            ("service.name", "shop"),
            ("service.namespace", "default"),
            ("service.instance.id", "default.web-1.nginx"),
            ("k8s.pod.name", "web-1"),
            ("k8s.container.name", "nginx"),
            ("k8s.node.name", "node-1"),
        ] {
            assert_eq!(span["resource"][key], value, "{key}");
        }

        // An egress rule for other pods, then one for this.
        node.redis.cli(&["set", "clovisor_egress_match", &format!("0:{OUTSIDE}:api")]);
        node.until("configuration 2", |node| node.status("config_version") == "2").await;
        node.ask_outside("/not-for-us");
        node.redis.cli(&["set", "clovisor_egress_match", &format!("0:{OUTSIDE}:web")]);
        node.until("configuration 3", |node| node.status("config_version") == "3").await;
        node.ask_outside("/asked");
        node.until("the client's span", |node| node.span("/asked").is_some()).await;
        let span = node.span("/asked").unwrap();
        assert_eq!((&span["kind"], &span["resource"]["service.name"]), (&3.into(), &"shop".into()));
        assert_eq!(span["attributes"]["service.peer.name"], "shop");
        assert!(node.span("/not-for-us").is_none());

        // The service's port is no longer HTTP, then it is again.
        node.put_service("tcp");
        node.until("a connection's span", |node| {
            node.ask("/as-tcp");
            node.spans().iter().any(|span| span["name"] == "TCP")
        })
        .await;
        node.put_service("http-web");
        node.until("HTTP again", |node| {
            node.ask("/as-http");
            node.span("/as-http").is_some()
        })
        .await;

        let metrics = node.http("/metrics");
        let line =
            |text: &str| assert!(metrics.lines().any(|line| line == text), "{text} is not in\n{metrics}");
        line("clovisor_pods{state=\"attached\"} 1");
        line("clovisor_redis_up 1");
        line("clovisor_kubernetes_up 1");
        line("clovisor_packets_lost_total{reason=\"buffer_full\"} 0");

        // Each span of a request is in the metrics, under the same names.
        let duration = |side: &str, status: u16, count: usize| {
            format!(
                "http_{side}_request_duration_seconds_count{{service_name=\"shop\",service_namespace=\"default\",\
                 http_request_method=\"GET\",http_response_status_code=\"{status}\",error_type=\"\",\
                 url_scheme=\"http\"}} {count}"
            )
        };
        // The address of all others here is that of the service.
        let edge = |what: &str, count: usize| {
            format!(
                "traces_service_graph_request_{what}{{client=\"shop\",server=\"shop\",\
                 client_service_namespace=\"default\",server_service_namespace=\"default\"}} {count}"
            )
        };
        node.until("as many spans as requests are counted", |node| {
            let spans = node.spans();
            let seen = |kind: u64, name: &str| {
                spans.iter().filter(|span| span["kind"] == kind && span["name"] == name).count()
            };
            let (answered, sent, connections) = (seen(2, "GET"), seen(3, "GET"), seen(2, "TCP"));
            let metrics = node.http("/metrics");
            let wanted = [
                duration("server", 200, answered),
                duration("client", 204, sent),
                edge("total", answered + connections),
                edge("server_seconds_count", answered),
                edge("client_seconds_count", sent),
            ];
            let has = |line: &String| metrics.lines().any(|found| found == line);
            answered > 1 && sent == 1 && connections > 0 && wanted.iter().all(has)
        })
        .await;
        assert_eq!(agent.terminate().await, Some(0));
    });
}

#[test]
fn labels_are_followed_and_wrong_entries_are_told() {
    let name = "labels_are_followed_and_wrong_entries_are_told";
    test(name, &["nginx", "curl"], async move |net| {
        let Some(node) = Node::new(name, net).await else { return };
        let _agent = node.run();
        node.until("attached", Node::is_attached).await;
        for (labels, attached) in [
            ("other", false),
            ("other,default:app:shop", true),
            ("default:app:else", false),
            ("default", true),
            // Wrong, all of it: no pod, rather than the default's.
            ("default:app", false),
            ("nonsense:,default", true),
        ] {
            node.redis.cli(&["set", "clovisor_labels", labels]);
            node.until(labels, |node| node.is_attached() == attached).await;
        }
        node.until("the wrong entry", |node| node.status("error:clovisor_labels").contains("nonsense:"))
            .await;

        // The pod is relabelled.
        node.redis.cli(&["set", "clovisor_labels", "default:app:shop"]);
        node.put_pod("default", "else");
        node.until("detached", |node| !node.is_attached()).await;
        node.put_pod("default", "shop");
        node.until("attached again", Node::is_attached).await;

        // As the original's list.
        node.redis.cli(&["del", "clovisor_labels"]);
        node.redis.cli(&["rpush", "clovisor_labels", "other", "another"]);
        node.until("detached by a list", |node| !node.is_attached()).await;
    });
}
