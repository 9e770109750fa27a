//! A real Kubernetes cluster of one node, for end-to-end tests: etcd, containerd, the control plane with RBAC, the
//! kubelet, kube-proxy and CoreDNS, all in a [`Sandbox`] of their own. It knows nothing of what is tested in it.
//!
//! Nothing of it can reach beyond the sandbox, and nothing stays behind: dropping it ends every process in it.

mod component;
mod kernel;
mod network;
mod pki;
mod sandbox;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

pub(crate) use component::Component;
pub(crate) use network::{NODE, OUTSIDE};
pub(crate) use sandbox::Sandbox;

use component::Files;

use crate::archive::{File, Image};
use crate::cache;
use crate::needs::{helm, kubernetes};
use crate::process::{self, Running};
use crate::stop::Stop;
use crate::workspace;

/// What the node is called in the cluster.
pub(crate) const NODE_NAME: &str = "node-1";
/// The name that pods know [`OUTSIDE`] by.
pub(crate) const OUTSIDE_NAME: &str = "outside.example";
/// The image of the process that holds a pod's namespaces.
const PAUSE_IMAGE: &str = "clovisor.test/pause:1";
/// How long a part of the cluster may take to start, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
/// How long one `kubectl` may take. In seconds, for `timeout`.
const KUBECTL_LIMIT: &str = "180";

/// A cluster that runs.
pub(crate) struct Cluster {
    // In the order in which they are dropped. The kernel keeps the sandbox until we have waited for our children in it.
    sandbox: Sandbox,
    components: Vec<(Component, Running)>,
    files: Files,
    stop: Stop,
    _lock: cache::Lock,
}

impl Cluster {
    /// Starts one and waits until its node is ready, which takes about 20 s. A second one waits for the first to end.
    /// To be called by the main thread (see [`Sandbox::new`]).
    ///
    /// # Errors
    /// Which part does not start, with the end of its log; or that we were told to stop.
    pub(crate) fn start(stop: &Stop) -> Result<Self> {
        let lock = cache::lock_for("cluster", "another cluster runs on this machine; waiting for its end")?;
        let sandbox = Sandbox::new()?;
        kernel::make_cgroups(&Sandbox::name())?;
        network::build(&sandbox).context("cannot make the cluster's network")?;
        let files = Files::write(&sandbox)?;
        let mut this = Self { sandbox, components: Vec::new(), files, stop: stop.clone(), _lock: lock };
        this.bring_up().map_err(|error| this.explain(error))?;
        Ok(this)
    }

    fn bring_up(&mut self) -> Result<()> {
        for component in Component::ALL {
            let _ = fs::remove_file(component.log());
        }
        for component in [Component::Etcd, Component::Containerd, Component::ApiServer] {
            self.start_component(component)?;
        }
        self.wait_until("containerd answers", PATIENCE, |this| {
            this.sandbox.output("ctr", &["version"]).map(Some)
        })?;
        self.load_pause_image()?;
        self.wait_until("the API server is ready", PATIENCE, |this| {
            this.kubectl(&["get", "--raw=/readyz"]).map(Some)
        })?;
        let dns = include_str!("dns.yaml")
            .replace("DNS_SERVICE", &network::DNS_SERVICE.to_string())
            .replace("NODE", &NODE.to_string());
        self.wait_until("its first objects are there", PATIENCE, |this| this.apply(&dns).map(Some))?;
        use Component::{ControllerManager, CoreDns, KubeProxy, Kubelet, Scheduler};
        for component in [ControllerManager, Scheduler, Kubelet, KubeProxy, CoreDns] {
            self.start_component(component)?;
        }
        let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        self.wait_until("the node is ready", PATIENCE, |this| {
            let status = this.kubectl(&["get", "node", NODE_NAME, "--output", ready])?;
            Ok((status == "True").then_some(()))
        })?;
        self.wait_until("pods can be made", PATIENCE, |this| {
            this.kubectl(&["get", "serviceaccount", "default"])?;
            let taints = this.kubectl(&["get", "node", NODE_NAME, "--output", "jsonpath={.spec.taints}"])?;
            Ok(taints.is_empty().then_some(()))
        })
    }

    /// Runs `kubectl` as administrator, for its output. It is given three minutes.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.sandbox.command("timeout");
        command
            .arg(KUBECTL_LIMIT)
            .arg(kubernetes::program("kubectl"))
            .arg("--kubeconfig")
            .arg(self.files.kubeconfig())
            .args(arguments);
        self.sandbox.enter(|| process::output(&mut command))
    }

    /// Runs a line of shell in the project's folder, where `kubectl` is the cluster's administrator: what the
    /// documents tell users to type.
    pub(crate) fn shell(&self, line: &str) -> Result<String> {
        let mut command = self.user("timeout");
        command.args([KUBECTL_LIMIT, "sh", "-c", line]);
        self.sandbox.enter(|| process::output(&mut command))
    }

    /// A command as a user of the cluster runs it.
    pub(crate) fn user(&self, program: &str) -> Command {
        let mut command = self.sandbox.command(program);
        let programs = [kubernetes::program("kubectl"), helm::program()];
        let folders =
            programs.iter().filter_map(|program| program.parent()).map(|dir| dir.display().to_string());
        let path: Vec<_> = folders.chain([sandbox::PATH.to_owned()]).collect();
        command
            .env("PATH", path.join(":"))
            .env("KUBECONFIG", self.files.kubeconfig())
            // Its caches are nobody else's business.
            .env("HELM_CACHE_HOME", self.sandbox.dir().join("helm"))
            .env("HELM_CONFIG_HOME", self.sandbox.dir().join("helm"))
            .env("HELM_DATA_HOME", self.sandbox.dir().join("helm"))
            .current_dir(workspace::root());
        command
    }

    /// Applies a manifest's text.
    pub(crate) fn apply(&self, manifest: &str) -> Result<String> {
        let file = self.sandbox.dir().join("manifest.yaml");
        fs::write(&file, manifest).with_context(|| format!("cannot write {}", file.display()))?;
        self.kubectl(&["apply", "--filename", &file.display().to_string()])
    }

    /// Loads images of a docker-archive. Pods that use them say `imagePullPolicy: Never`.
    pub(crate) fn load_image(&self, tar: &Path) -> Result<()> {
        let tar = tar.display().to_string();
        self.sandbox
            .output("ctr", &["--namespace", "k8s.io", "images", "import", &tar])
            .with_context(|| format!("cannot load the image {tar}"))
            .map(drop)
    }

    /// The node: what runs there sees its network, mounts and processes.
    pub(crate) fn node(&self) -> &Sandbox {
        &self.sandbox
    }

    /// A command on the outside host, to be started by [`Sandbox::start`] or run in [`Sandbox::enter`]. Its process is
    /// the program itself: `ip` steps aside.
    pub(crate) fn outside(&self, program: &str) -> Command {
        let mut command = self.sandbox.command("ip");
        command
            .args(["netns", "exec", network::OUTSIDE_NAMESPACE])
            .arg(process::find(program).unwrap_or_else(|| program.into()));
        command
    }

    /// Starts a component that was stopped. Returns at once; [`Cluster::wait_until`] waits for what is expected of it.
    pub(crate) fn start_component(&mut self, component: Component) -> Result<()> {
        let command = component.command(&self.sandbox, &self.files);
        let running = self.sandbox.start(component.name(), command, &component.log())?;
        self.components.push((component, running));
        Ok(())
    }

    /// Stops a component and waits for its end: asked to, then, after three seconds, killed. What it keeps stays.
    pub(crate) fn stop_component(&mut self, component: Component) {
        self.components.retain(|(other, _)| *other != component);
    }

    /// Asks again and again until there is a value; an error counts as "not yet".
    ///
    /// # Errors
    /// After the limit, with the last error; when a component has ended; when we are told to stop.
    pub(crate) fn wait_until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            let answer = ask(self);
            if let Ok(Some(value)) = answer {
                return Ok(value);
            }
            self.check()?;
            if started.elapsed() > limit {
                let cause = answer.err().unwrap_or_else(|| anyhow!("it is not so"));
                return Err(cause.context(format!("waited {} s until {what}", limit.as_secs())));
            }
            thread::sleep(POLL);
        }
    }

    /// Fails when a component has ended by itself, or when we are told to stop.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.stop.wanted() {
            bail!("told to stop");
        }
        for (component, running) in &mut self.components {
            if let Some(status) = running.status()? {
                let log = component.log();
                let (name, tail) = (component.name(), process::tail(&log));
                bail!("{name} has ended ({status}); the end of {}:\n{tail}", log.display());
            }
        }
        Ok(())
    }

    /// How a person asks the cluster while it runs.
    pub(crate) fn kubectl_by_hand(&self) -> String {
        format!(
            "nsenter --target {} --all -- {} --kubeconfig {}",
            self.sandbox.pid(),
            kubernetes::program("kubectl").display(),
            self.files.kubeconfig().display()
        )
    }

    /// The error of a start, with what the logs say where no part is known to be at fault.
    fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        if self.check().is_ok() {
            for (component, _) in &self.components {
                eprintln!("the end of {}:\n{}", component.log().display(), process::tail(&component.log()));
            }
        }
        error.context("the cluster does not start")
    }

    fn load_pause_image(&self) -> Result<()> {
        let busybox = process::find("busybox").context("busybox is gone")?;
        let mut files = crate::libraries::with_program("/bin/busybox", &busybox)?;
        files.push(File { path: "/bin/sleep".to_owned(), source: busybox, mode: 0o755 });
        let entrypoint = ["/bin/sleep", "2147483647"].map(str::to_owned).to_vec();
        let image = Image { reference: PAUSE_IMAGE.to_owned(), entrypoint, files, ..Image::default() };
        let tar = self.sandbox.dir().join("pause.tar");
        image.write_docker_archive(&tar, crate::libraries::ARCHITECTURE)?;
        self.load_image(&tar)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.sandbox.kill();
        // Each has been killed with the sandbox, whose end waits until all of them are waited for.
        self.components.clear();
    }
}
