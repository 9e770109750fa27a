//! What a scenario acts in: a cluster, an outside host with a web server, and words for what scenarios do again and
//! again. It stays the same cluster from scenario to scenario; what a scenario makes, it makes in a namespace of its
//! own or takes away again.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::images;
use crate::cache;
use crate::cluster::{Cluster, Component};
use crate::process::Running;
use crate::stop::Stop;

/// How long a change may take until it shows, on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The cluster and what is around it.
pub(crate) struct World {
    // Dropped first: the sandbox does not end before we have waited for our children in it.
    _outside: Option<Running>,
    /// The cluster itself.
    pub(crate) cluster: Cluster,
    /// Whether the agent's image was built and loaded.
    pub(crate) has_agent_image: bool,
}

impl World {
    /// Starts the cluster, loads the images and starts the outside host's web server.
    pub(crate) fn start(stop: &Stop) -> Result<Self> {
        let cluster = Cluster::start(stop)?;
        let mut this = Self { _outside: None, cluster, has_agent_image: false };
        let dir = this.cluster.node().dir().join("images");
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        for tar in images::write(&dir)? {
            this.cluster.load_image(&tar)?;
            // The containers are made of what containerd keeps; this is half a gigabyte.
            let _ = fs::remove_file(tar);
        }
        let mut nginx = this.cluster.outside("nginx");
        nginx.args(["-e", "stderr", "-p"]).arg(&dir).arg("-c").arg(dir.join(images::NGINX_CONF));
        let log = cache::log("e2e/outside");
        let _ = fs::remove_file(&log);
        this._outside = Some(this.cluster.node().start("the outside host's nginx", nginx, &log)?);
        Ok(this)
    }

    /// Runs `kubectl` as administrator, for its output.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments)
    }

    /// Applies a manifest's text after replacing words in it, as the name of an image:
    /// `apply(text, &[("clovisor:latest", "clovisor:e2e"), ("imagePullPolicy: Always", "imagePullPolicy: Never")])`.
    ///
    /// # Errors
    /// Also when a word is not in the text: the manifest and the scenario have come apart.
    pub(crate) fn apply(&self, manifest: &str, replace: &[(&str, &str)]) -> Result<()> {
        let mut text = manifest.to_owned();
        for (old, new) in replace {
            ensure!(text.contains(old), "there is no `{old}` in the manifest to be replaced by `{new}`");
            text = text.replace(old, new);
        }
        self.cluster.apply(&text).map(drop)
    }

    /// Waits until all pods of a workload are the newest and ready: `rollout("clovisor", "daemonset/clovisor")`.
    pub(crate) fn rollout(&self, namespace: &str, workload: &str) -> Result<()> {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        let outcome = self.kubectl(&["--namespace", namespace, "rollout", "status", &limit, workload]);
        outcome.map(drop).map_err(|error| {
            let log = ["--namespace", namespace, "logs", "--all-containers", "--tail=20", workload];
            let log = self.kubectl(&log).unwrap_or_else(|error| format!("{error:#}"));
            error.context(format!("{workload} in {namespace} is not ready; it says:\n{log}"))
        })
    }

    /// Runs a command in a pod, for its output: `exec("shop", "deployment/client", &["curl", "http://web/"])`.
    pub(crate) fn exec(&self, namespace: &str, target: &str, command: &[&str]) -> Result<String> {
        self.kubectl(&[&["--namespace", namespace, "exec", target, "--"], command].concat())
    }

    /// Asks until there is a value, with [`PATIENCE`]; an error counts as "not yet". Fails at once when we are told to
    /// stop or a component of the cluster has ended by itself.
    pub(crate) fn wait_until<T>(
        &mut self,
        what: &str,
        ask: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        self.wait_for(what, PATIENCE, ask)
    }

    /// As [`World::wait_until`], with a limit.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let answer = ask(self);
            if let Ok(Some(value)) = answer {
                return Ok(value);
            }
            self.cluster.check()?;
            if std::time::Instant::now() > deadline {
                let context = format!("waited {} s until {what}", limit.as_secs());
                return match answer {
                    Err(error) => Err(error.context(context)),
                    Ok(_) => bail!("{context}: it is not so"),
                };
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Deploys Redis as `redis.clover-system:6379` and waits for it; does nothing if it is there.
    pub(crate) fn start_redis(&self) -> Result<()> {
        self.apply(include_str!("manifests/redis.yaml"), &[])?;
        self.rollout("clover-system", "deployment/redis")
    }

    /// Runs `redis-cli` in the Redis pod: `redis(&["SADD", "clovisor_labels", "app:web"])`.
    pub(crate) fn redis(&self, command: &[&str]) -> Result<String> {
        let answer = self.exec("clover-system", "deployment/redis", &[&["redis-cli"], command].concat())?;
        let answer = answer.trim_end();
        ensure!(!answer.starts_with("ERR "), "Redis refuses {command:?}: {answer}");
        Ok(answer.to_owned())
    }

    /// Deploys Jaeger as `jaeger-collector.clovisor` and waits for it; does nothing if it is there.
    pub(crate) fn start_jaeger(&self) -> Result<()> {
        self.apply(include_str!("manifests/jaeger.yaml"), &[])?;
        self.rollout("clovisor", "deployment/jaeger")
    }

    /// Asks Jaeger's query API, below `/api/`, and returns its `data`: `jaeger("traces?service=web&limit=100")`.
    pub(crate) fn jaeger(&self, path: &str) -> Result<Value> {
        self.jaeger_at("jaeger-query.clovisor", path)
    }

    /// As [`World::jaeger`], of the Jaeger with this `service.namespace`.
    pub(crate) fn jaeger_at(&self, query: &str, path: &str) -> Result<Value> {
        let (service, namespace) = query.split_once('.').context("a service is named with its namespace")?;
        let address = self.service_ip(namespace, service)?;
        let json = self.get(&format!("http://{address}:16686/api/{path}"))?;
        let mut answer: Value =
            serde_json::from_str(&json).with_context(|| format!("Jaeger answers {path} with {json}"))?;
        ensure!(answer["errors"].is_null(), "Jaeger answers {path} with {}", answer["errors"]);
        Ok(answer["data"].take())
    }

    /// The address of a service.
    pub(crate) fn service_ip(&self, namespace: &str, service: &str) -> Result<String> {
        let path = "jsonpath={.spec.clusterIP}";
        self.kubectl(&["--namespace", namespace, "get", "service", service, "--output", path])
    }

    /// An HTTP request from the node, for the response's body. A status of 400 and above is an error.
    pub(crate) fn get(&self, url: &str) -> Result<String> {
        self.cluster
            .node()
            .output("curl", &["--silent", "--show-error", "--fail", "--max-time", "10", "--globoff", url])
    }

    /// An HTTP request from a pod that has curl, for the response's body, whatever its status.
    pub(crate) fn get_from(&self, namespace: &str, target: &str, url: &str) -> Result<String> {
        self.exec(
            namespace,
            target,
            &["curl", "--silent", "--show-error", "--max-time", "10", "--globoff", url],
        )
    }

    /// What a person wants to see of a failed scenario: pods, recent events, and where the logs are.
    pub(crate) fn show_state(&self) {
        for arguments in
            [&["get", "pods", "--all-namespaces", "--output=wide"][..], &["events", "--all-namespaces"]]
        {
            let text = self.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<_> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("  | {line}");
            }
        }
        let log = Component::Kubelet.log();
        if let Some(logs) = log.parent() {
            eprintln!("  logs of the cluster's parts: {}", logs.display());
        }
    }
}
