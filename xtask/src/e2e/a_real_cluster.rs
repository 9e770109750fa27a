//! The cluster that the other scenarios rely on is a real one: what fails here is no fault of Clovisor's.

use anyhow::{Context, Result, ensure};

use super::World;
use crate::cluster::{Component, NODE, NODE_NAME, OUTSIDE, OUTSIDE_NAME};

const SHOP: &str = "shop";
const CLIENT: &str = "deployment/client";

pub(super) fn run(world: &mut World) -> Result<()> {
    world.apply(include_str!("manifests/web.yaml"), &[])?;
    world.start_redis()?;
    world.start_jaeger()?;
    for workload in ["deployment/web", CLIENT] {
        world.rollout(SHOP, workload)?;
    }
    services_and_names(world).context("services and names")?;
    exec_and_logs(world).context("exec and logs")?;
    rights(world).context("rights")?;
    backends(world).context("Redis and Jaeger")?;
    host_network(world).context("a pod in the node's network")?;
    way_out(world).context("the way out")?;
    api_server_comes_back(world).context("the API server, stopped and started")
}

fn services_and_names(world: &mut World) -> Result<()> {
    for name in ["web", "web.shop", "web.shop.svc.cluster.local"] {
        world.wait_until(&format!("the service answers by the name {name}"), |world| {
            let answer = world.get_from(SHOP, CLIENT, &format!("http://{name}/items/1"))?;
            Ok((answer == "GET /items/1\n").then_some(()))
        })?;
    }
    let address = world.service_ip(SHOP, "web")?;
    let answer = world.get(&format!("http://{address}/"))?;
    ensure!(answer == "hello\n", "from the node, the service answers {answer:?}");
    // kube-proxy spreads connections; each of these is a new one.
    let pods = world.kubectl(&[
        "-n",
        SHOP,
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[*].status.podIP}",
    ])?;
    ensure!(pods.split(' ').count() == 2, "two pods are to serve, there are: {pods}");
    Ok(())
}

fn exec_and_logs(world: &mut World) -> Result<()> {
    let said = world.exec(SHOP, CLIENT, &["sh", "-c", "echo inside; echo $KUBERNETES_SERVICE_HOST"])?;
    ensure!(said == "inside\n10.96.0.1\n", "exec says {said:?}");
    let log = world.kubectl(&["--namespace", SHOP, "logs", CLIENT])?;
    ensure!(log == "ready\n", "the log says {log:?}");
    Ok(())
}

fn rights(world: &mut World) -> Result<()> {
    let user = "--as=system:serviceaccount:shop:default";
    let can = |verb: &str, thing: &str| {
        // It exits with 1 for a no, which is no failure here.
        let answer = world.kubectl(&["auth", "can-i", verb, thing, user, "--namespace", SHOP]);
        matches!(answer.as_deref().map(str::trim), Ok("yes"))
    };
    ensure!(!can("list", "pods"), "a service account without a role may list pods");
    world.kubectl(&["-n", SHOP, "create", "role", "reader", "--verb=list", "--resource=pods"])?;
    world.kubectl(&[
        "-n",
        SHOP,
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--serviceaccount=shop:default",
    ])?;
    ensure!(can("list", "pods"), "a service account may not do what its role allows");
    ensure!(!can("delete", "pods"), "a service account may do what its role does not allow");
    let list = world.kubectl(&["auth", "can-i", "--list", user, "--namespace", SHOP])?;
    ensure!(
        list.lines().any(|line| line.starts_with("pods ") && line.contains("[list]")),
        "the list of rights has no line for pods:\n{list}"
    );
    // The token in the pod is a real one.
    let script = "curl -sk -o /dev/null -w '%{http_code}' \
                  -H \"Authorization: Bearer $(busybox cat /var/run/secrets/kubernetes.io/serviceaccount/token)\" \
                  https://kubernetes.default/api/v1/namespaces/shop/";
    for (thing, expected) in [("pods", "200"), ("secrets", "403")] {
        let status = world.exec(SHOP, CLIENT, &["sh", "-c", &format!("{script}{thing}")])?;
        ensure!(
            status == expected,
            "with the pod's token the API answers {status} for {thing}, not {expected}"
        );
    }
    Ok(())
}

fn backends(world: &mut World) -> Result<()> {
    let answer = world.redis(&["SET", "e2e", "here"])?;
    ensure!(answer == "OK", "Redis answers {answer:?}");
    let answer = world.redis(&["GET", "e2e"])?;
    ensure!(answer == "here", "Redis answers {answer:?}");
    world.redis(&["DEL", "e2e"])?;
    ensure!(
        world.jaeger("services")?.is_array() || world.jaeger("services")?.is_null(),
        "Jaeger lists no services"
    );
    let ping = "busybox echo PING | busybox nc -w 5 redis.clover-system 6379";
    let answer = world.exec(SHOP, CLIENT, &["sh", "-c", ping])?;
    ensure!(answer.trim() == "+PONG", "by its name, Redis answers {answer:?}");
    // A page that is not there, from a server that is.
    let answer = world.get_from(SHOP, CLIENT, "http://jaeger-collector.clovisor:4318/")?;
    ensure!(answer.contains("404"), "by its name, Jaeger answers {answer:?}");
    Ok(())
}

/// As the agent's pod does, one in the node's network finds services by name.
fn host_network(world: &mut World) -> Result<()> {
    world.apply(include_str!("manifests/host.yaml"), &[])?;
    world.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/host"])?;
    let answer = world.get_from("default", "host", "http://web.shop/who")?;
    let answer = answer.trim();
    // For a service, the node's address may be that of any of its interfaces.
    ensure!(answer.parse::<std::net::IpAddr>().is_ok(), "in the node's network, web.shop answers {answer:?}");
    world.kubectl(&["delete", "pod", "host", "--now"]).map(drop)
}

fn way_out(world: &mut World) -> Result<()> {
    for host in [OUTSIDE.to_string(), OUTSIDE_NAME.to_owned()] {
        let seen = world.get_from(SHOP, CLIENT, &format!("http://{host}/who"))?;
        ensure!(
            seen == format!("{NODE}\n"),
            "the outside host at {host} is to see the node's address, it saw {seen:?}"
        );
    }
    Ok(())
}

fn api_server_comes_back(world: &mut World) -> Result<()> {
    world.cluster.stop_component(Component::ApiServer);
    ensure!(world.kubectl(&["get", "nodes"]).is_err(), "a stopped API server answers");
    world.cluster.start_component(Component::ApiServer)?;
    world.wait_until("the API server knows the node again", |world| {
        let nodes = world.kubectl(&["get", "nodes", "--output=name"])?;
        Ok((nodes.trim() == format!("node/{NODE_NAME}")).then_some(()))
    })
}
