//! The Helm chart: it makes what the kustomize manifests make, refuses wrong values, and is installed, changed and
//! removed as deploy/README.md says.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use super::agent;

const RENDER: &str = "helm template clovisor deploy/helm/clovisor --namespace clovisor";
/// Each kustomization, and the values that make the chart the same.
const SAME: [(&str, &str); 4] = [
    ("base", "namespace.create=true"),
    ("overlays/quickstart", "namespace.create=true,quickstart.enabled=true"),
    ("overlays/privileged", "namespace.create=true,privileged=true"),
    ("overlays/pod-side", "namespace.create=true,podSide=true"),
];
/// What the chart has and the kustomization has not: Helm leaves the namespace where it is.
const KEEP: &str = "helm.sh/resource-policy";
/// Wrong values, and what the refusal names.
const WRONG: [(&str, &str); 9] = [
    ("pod_side=true", "pod_side"),
    ("redis.urll=redis://redis", "urll"),
    ("redis.url=http://redis", "/redis/url"),
    ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
    ("port=0", "/port"),
    ("privileged=maybe", "/privileged"),
    ("maxUnavailable=all", "/maxUnavailable"),
    ("resources.limit.memory=1Gi", "limit"),
    ("quickstart=true", "/quickstart"),
];

pub(super) fn run(world: &mut World) -> Result<()> {
    world.cluster.shell("helm lint --strict deploy/helm/clovisor").context("lint")?;
    for (folder, values) in SAME {
        same(world, folder, values)
            .with_context(|| format!("deploy/{folder} and the chart with {values}"))?;
    }
    for (values, named) in WRONG {
        let outcome = world.cluster.shell(&format!("{RENDER} --set {values}"));
        let said = outcome.err().with_context(|| format!("{values} was taken"))?;
        ensure!(format!("{said:#}").contains(named), "the refusal of {values} does not name it:\n{said:#}");
    }
    installed(world)
}

/// Both make the same objects.
fn same(world: &World, folder: &str, values: &str) -> Result<()> {
    let objects = |render: &str| -> Result<BTreeMap<String, Value>> {
        // The API server says which resources there are, and nothing is made.
        let line = format!("{render} | kubectl create --dry-run=client --output=json --filename=-");
        let text = world.cluster.shell(&line)?;
        serde_json::Deserializer::from_str(&text)
            .into_iter()
            .map(|object| {
                let mut object: Value = object.context("kubectl does not answer in JSON")?;
                let meta = object["metadata"].as_object_mut().context("an object has no metadata")?;
                if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
                    annotations.remove(KEEP);
                    if annotations.is_empty() {
                        meta.remove("annotations");
                    }
                }
                let meta = &object["metadata"];
                Ok((format!("{} {} {}", object["kind"], meta["namespace"], meta["name"]), object))
            })
            .collect()
    };
    let kustomized = objects(&format!("kubectl kustomize deploy/{folder}"))?;
    let charted = objects(&format!("{RENDER} --set {values}"))?;
    let names = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>();
    ensure!(
        names(&kustomized) == names(&charted),
        "the objects are {:?}, and the chart's {:?}",
        names(&kustomized),
        names(&charted)
    );
    ensure!(kustomized.len() >= 5, "there are only {} objects", kustomized.len());
    for (name, object) in &kustomized {
        ensure!(charted[name] == *object, "{name} is\n{object:#}\nand of the chart\n{:#}", charted[name]);
    }
    Ok(())
}

/// By the commands of the document.
fn installed(world: &mut World) -> Result<()> {
    agent::shop_alone(world)?;
    let before = agent::hooks(world)?;
    let document = agent::commands("deploy/README.md", "Helm", "helm ")?;
    let [install, upgrade, uninstall] = &document[..] else {
        anyhow::bail!("deploy/README.md has {} commands of Helm's and not 3", document.len());
    };
    let typed = |world: &World, line: &str| {
        eprintln!("  $ {line}");
        world.cluster.shell(line)
    };
    let notes = typed(world, install)?;
    ensure!(notes.contains("redis-cli set clovisor_labels"), "the notes say\n{notes}");
    agent::ready(world)?;
    agent::trace_the_shop(world)?;
    agent::request(world, "charted", 10)?;
    agent::arrived(world, "charted", 10)?;
    // One agent serves a node, so one release serves a cluster.
    let second = world.cluster.shell("helm install second deploy/helm/clovisor --namespace default");
    let said = second.err().context("a second release was let in")?;
    ensure!(format!("{said:#}").contains("clovisor"), "it was refused so: {said:#}");

    typed(world, upgrade)?;
    agent::ready(world)?;
    let rights = agent::capabilities(world)?;
    ensure!(rights == agent::WITH_SYS_ADMIN, "after the upgrade the agent has the capabilities {rights}");
    agent::interfaces(world, 3)?;
    agent::request(world, "upgraded", 10)?;
    agent::arrived(world, "upgraded", 10)?;

    typed(world, uninstall)?;
    world.wait_until("the interfaces are as before", |world| {
        let after = agent::hooks(world)?;
        ensure!(after == before, "they were\n{}\nand are\n{}", before.join("\n"), after.join("\n"));
        Ok(Some(()))
    })?;
    let left = world.kubectl(&[
        "get",
        "clusterrole,clusterrolebinding,daemonset,deployment,service,serviceaccount",
        "--all-namespaces",
        "--output=name",
    ])?;
    let left: Vec<_> =
        left.lines().filter(|name| name.contains("clovisor") || name.contains("jaeger")).collect();
    ensure!(left.is_empty(), "the release has left {left:?}");
    Ok(())
}
