//! A node: one pod with nginx, the API server and the Redis that the agent is configured by, and the agent itself.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    api,
    law::Metrics,
    listen::listen,
    netns::{HOST_V4, Net, POD_V4},
    redis::Redis,
    server::{Nginx, PORT},
};

/// How long anything may take before the test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where the agent answers probes; each test has a network namespace of its own.
const LISTEN: &str = "127.0.0.1:9465";
/// Port of the server outside the pod.
pub(crate) const OUTSIDE: u16 = 9090;
/// UID of the pod.
const UID: &str = "11111111-2222-3333-4444-555555555555";

pub(crate) struct Node {
    net: Arc<Net>,
    pub(crate) api: api::Server,
    pub(crate) redis: Redis,
    /// Where the agent looks for what the CNI plugins did.
    pub(crate) cni_cache: PathBuf,
    folder: PathBuf,
    _nginx: Nginx,
}

impl Node {
    /// A node whose pod `web-1` of namespace `default` is served by service `shop`; `None` where Redis is missing.
    pub(crate) async fn new(test: &str, net: Arc<Net>) -> Option<Self> {
        let redis = Redis::started(test, &[])?;
        let nginx = Nginx::start(&net, test);
        let folder = std::env::temp_dir().join(format!("clovisor-agent-{}-{test}", std::process::id()));
        fs::create_dir_all(folder.join("cni")).unwrap();
        let cached = json!({
            "kind": "cniCacheV1", "containerId": "c", "ifName": "eth0", "networkName": "pods",
            "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-1"], ["K8S_POD_UID", UID]],
            "result": {
                "cniVersion": "1.0.0",
                "interfaces": [{"name": "veth0"}, {"name": "eth0", "sandbox": format!("/run/netns/{}", net.pod)}],
                "ips": [{"address": format!("{POD_V4}/24"), "interface": 1}],
            },
        });
        fs::write(folder.join("cni/pods-c-eth0"), cached.to_string()).unwrap();
        let api = api::Server::start().await;
        let node = Self { net, api, redis, cni_cache: folder.join("cni"), folder, _nginx: nginx };
        node.put_pod("default", "shop");
        node.put_service("http");
        Some(node)
    }

    pub(crate) fn put_pod(&self, namespace: &str, app: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "uid": UID, "labels": {"app": app}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "nginx", "image": "nginx", "ports": [
                {"name": "web", "containerPort": PORT}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": POD_V4}]},
        });
        self.api.put("pods", "web-1", pod);
    }

    /// Makes or changes the service; `port` is its port's name.
    pub(crate) fn put_service(&self, port: &str) {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "uid": "s"},
            "spec": {"selector": {"app": "shop"}, "clusterIP": HOST_V4, "clusterIPs": [HOST_V4],
                "ports": [{"name": port, "port": 80, "protocol": "TCP", "targetPort": "web"}]},
        });
        self.api.put("services", "shop", service);
    }

    /// Starts the agent in the namespace of the calling thread. Its spans come after those of earlier ones.
    pub(crate) fn run(&self) -> Agent {
        self.run_under(&[env!("CARGO_BIN_EXE_clovisor")])
    }

    /// The same with a setting, `NAME=VALUE`.
    pub(crate) fn run_set(&self, setting: &str) -> Agent {
        self.run_under(&["env", setting, env!("CARGO_BIN_EXE_clovisor")])
    }

    /// The same with exactly these capabilities.
    pub(crate) fn run_with(&self, rights: &str) -> Agent {
        let agent = env!("CARGO_BIN_EXE_clovisor");
        self.run_under(&["setpriv", "--bounding-set", rights, "--inh-caps", rights, agent])
    }

    fn run_under(&self, program: &[&str]) -> Agent {
        let kubeconfig = self.folder.join("kubeconfig");
        let server = format!("http://{}", self.api.address);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        });
        fs::write(&kubeconfig, config.to_string()).unwrap();
        let open = |name| File::options().create(true).append(true).open(self.folder.join(name)).unwrap();
        let mut command = Command::new(program[0]);
        command.args(&program[1..]);
        for (name, _) in std::env::vars() {
            if name.starts_with("OTEL_") || name.starts_with("CLOVISOR_") {
                command.env_remove(name);
            }
        }
        command.arg("run").args(["--node", "node-1", "--to", "stdout", "--listen", LISTEN]);
        command.arg("--redis").arg(format!("unix://{}", self.redis.socket().display()));
        command.arg("--cni-cache").arg(&self.cni_cache);
        command.env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
        Agent { child: command.stdout(open("spans")).stderr(open("log")).spawn().unwrap() }
    }

    /// What the agent said on stderr.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("spans")).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The span with this path or URL.
    pub(crate) fn span(&self, path: &str) -> Option<Value> {
        self.spans().into_iter().find(|span| {
            let has =
                |name: &str| span["attributes"][name].as_str().is_some_and(|value| value.ends_with(path));
            has("url.path") || has("url.full")
        })
    }

    /// So many requests from outside to the pod, as fast as one connection has them.
    pub(crate) fn flood(&self, count: usize) {
        let url = format!("http://{POD_V4}:{PORT}/flood/[1-{count}]");
        self.net.in_host(&["curl", "-s", "--interface", "veth0", "-o", "/dev/null", &url]);
    }

    /// One request from outside to the pod.
    pub(crate) fn ask(&self, path: &str) {
        let url = format!("http://{POD_V4}:{PORT}{path}");
        self.net.in_host(&["curl", "-s", "-m", "5", "--interface", "veth0", "-o", "/dev/null", &url]);
    }

    /// So many uploads of a megabyte each to the pod.
    pub(crate) fn upload(&self, count: usize) {
        let file = self.folder.join("megabyte");
        fs::write(&file, vec![b'x'; 1_000_000]).unwrap();
        let body = format!("@{}", file.display());
        let url = format!("http://{POD_V4}:{PORT}/upload");
        for _ in 0..count {
            let curl = ["curl", "-s", "-m", "5", "--interface", "veth0", "-o", "/dev/null"];
            self.net.in_host(&[&curl[..], &["-H", "Expect:", "--data-binary", &body, &url]].concat());
        }
    }

    /// One request of the pod's own to the server outside.
    pub(crate) fn ask_outside(&self, path: &str) {
        let listener = listen(HOST_V4.parse().unwrap(), OUTSIDE);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        });
        let url = format!("http://{HOST_V4}:{OUTSIDE}{path}");
        self.net.in_pod(&["curl", "-s", "-m", "5", "--interface", "eth0", "-o", "/dev/null", &url]);
        server.join().unwrap();
    }

    /// What the agent answers at a path.
    pub(crate) fn http(&self, path: &str) -> String {
        let url = format!("http://{LISTEN}{path}");
        let output =
            crate::netns::try_run("ip", &["netns", "exec", &self.net.host, "curl", "-s", "-m", "5", &url]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Whatever a test asks for, the ledger of that moment balances. An agent that does not answer says nothing.
        if path == "/metrics" && text.ends_with("# EOF\n") {
            Metrics::of(&text).assert_balanced();
        }
        text
    }

    /// A field of the status in Redis.
    pub(crate) fn status(&self, field: &str) -> String {
        self.redis.cli(&["hget", "clovisor_status:node-1", field])
    }

    /// Whether our filters are on the pod's interface.
    pub(crate) fn is_attached(&self) -> bool {
        self.net.in_host(&["tc", "qdisc", "show", "dev", "veth0"]).contains("clsact")
    }

    /// Whether our filters are on the pod's interface, inside its namespace.
    pub(crate) fn is_attached_inside(&self) -> bool {
        self.net.in_pod(&["tc", "qdisc", "show", "dev", "eth0"]).contains("clsact")
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < PATIENCE, "not seen: {what}\n{}\n{:#?}", self.log(), self.spans());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What the agents said of their ends.
        let log = self.log();
        assert!(std::thread::panicking() || !log.contains("IS NOT"), "{log}");
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// A running agent; dropping it kills it.
pub(crate) struct Agent {
    child: Child,
}

impl Agent {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as Kubernetes does, and gives its exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "the agent does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
