//! An agent that gets no processor time for a while: what is lost is counted, said and marked.

use nix::sys::signal::Signal;

use crate::{law::Metrics, netns::test, node::Node};

#[test]
fn what_is_lost_is_told_everywhere() {
    let name = "what_is_lost_is_told_everywhere";
    test(name, &["nginx", "curl"], async move |net| {
        let Some(node) = Node::new(name, net).await else { return };
        let agent = node.run();
        node.until("attached", Node::is_attached).await;
        node.ask("/before");
        node.until("a span", |node| node.span("/before").is_some()).await;
        assert!(node.http("/metrics").contains("clovisor_loss_ratio{of=\"packets\"} 0.0"));

        agent.signal(Signal::SIGSTOP);
        // The buffer holds 8 MiB, or perf buffers as much for each CPU.
        node.upload(20 * std::thread::available_parallelism().unwrap().get());
        agent.signal(Signal::SIGCONT);
        node.until("losses in the metrics", |node| {
            let text = node.http("/metrics");
            if text.is_empty() {
                return false;
            }
            let metrics = Metrics::of(&text);
            metrics.sum("clovisor_packets_lost_total", "buffer_full") > 0
                && metrics.sum("clovisor_sessions_overlapping_loss_total", "") > 0
        })
        .await;
        node.ask("/after");
        node.until("a span after it", |node| node.span("/after").is_some()).await;
        for (path, marked) in [("/before", false), ("/upload", true), ("/after", false)] {
            let span = node.span(path).unwrap();
            assert_eq!(
                span["attributes"]["clovisor.overlaps_loss"].as_bool(),
                marked.then_some(true),
                "{span}"
            );
        }

        let text = node.http("/metrics");
        let metrics = Metrics::of(&text);
        let lost = metrics.sum("clovisor_packets_total", "lost_buffer_full");
        assert_eq!(metrics.sum("clovisor_packets_lost_by_cpu_total", "cpu"), lost);
        node.until("it in the status", |node| node.status("drops") == lost.to_string()).await;
        assert_eq!(agent.terminate().await, Some(0));
        let log = node.log();
        assert!(log.contains(&format!("{lost} of veth0; ")), "{log}");
        assert!(log.contains(&format!("lost      {lost} = {lost} at veth0")), "{log}");
        assert!(
            log.contains("packets   ") && log.contains("captured  ") && log.contains("sessions  "),
            "{log}"
        );
    });
}

#[test]
fn what_is_left_out_is_told_everywhere() {
    let name = "what_is_left_out_is_told_everywhere";
    test(name, &["nginx", "curl", "env"], async move |net| {
        let Some(node) = Node::new(name, net).await else { return };
        let agent = node.run_set("CLOVISOR_CPU=150m");
        node.until("attached", Node::is_attached).await;
        let says = |node: &Node, name: &str, label: &str| {
            let text = node.http("/metrics");
            (!text.is_empty()).then(|| Metrics::of(&text).sum(name, label))
        };
        let shed = |node: &Node| says(node, "clovisor_packets_total", "verdict=\"shed\"").unwrap_or(0);
        let mut floods = 0;
        while shed(&node) == 0 {
            assert!(floods < 50, "it takes all of it\n{}", node.log());
            node.flood(1_000);
            floods += 1;
        }
        node.until("the end of it", |node| says(node, "clovisor_overload_level", "") == Some(0)).await;
        node.ask("/after");
        node.until("a span after it", |node| node.span("/after").is_some()).await;

        let text = node.http("/metrics");
        let metrics = Metrics::of(&text);
        let by_kernel = metrics.sum("clovisor_packets_total", "verdict=\"shed\"");
        let pod = "pod=\"default/web-1\"";
        assert_eq!(metrics.sum("clovisor_pod_packets_shed_total", pod), by_kernel);
        assert!(
            metrics.sum("clovisor_sessions_shed_total", "")
                >= metrics.sum("clovisor_pod_sessions_shed_total", pod)
        );
        assert_eq!(agent.terminate().await, Some(0));
        let log = node.log();
        let began = log.find("overloaded, as more processor time was used than is allowed: leaving out ");
        let ended = log.find("no longer overloaded: nothing is left out");
        assert!(began.is_some() && began < ended, "{log}");
        let account = format!("shed      {by_kernel} = {by_kernel} of default/web-1 (about ");
        assert!(log.contains(&account), "{log}");
    });
}
