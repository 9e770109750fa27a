//! The programs that a cluster is made of, and how each is started. All of them listen inside the sandbox only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::network::{self, DNS_SERVICE, NODE, OUTSIDE, PODS, SERVICES};
use super::pki::Pki;
use super::sandbox::Sandbox;
use super::{NODE_NAME, OUTSIDE_NAME, PAUSE_IMAGE};
use crate::needs::kubernetes;
use crate::{cache, process};

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Component {
    /// Keeps the state.
    Etcd,
    /// Runs containers.
    Containerd,
    /// What everybody talks to.
    ApiServer,
    /// Makes pods of Deployments, endpoints of Services, and so on.
    ControllerManager,
    /// Finds a node for a pod.
    Scheduler,
    /// Runs the node's pods.
    Kubelet,
    /// Leads connections to a service on to its pods.
    KubeProxy,
    /// The name server.
    CoreDns,
}

/// Files that components read, all in the sandbox's directory.
pub(super) struct Files {
    dir: PathBuf,
    pki: Pki,
    kubectl: PathBuf,
}

impl Component {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Etcd,
        Self::Containerd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::CoreDns,
    ];

    /// What it is called, as a program and in the name of its log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::CoreDns => "coredns",
        }
    }

    /// Where it logs to: the same place in every run, so that the log is there when the cluster is gone.
    pub(crate) fn log(self) -> PathBuf {
        cache::log(&format!("e2e/{}", self.name()))
    }

    /// The command that starts it.
    pub(super) fn command(self, sandbox: &Sandbox, files: &Files) -> Command {
        let program = match self {
            Self::Etcd | Self::Containerd => {
                process::find(self.name()).unwrap_or_else(|| PathBuf::from(self.name()))
            }
            Self::CoreDns => kubernetes::coredns(),
            _ => kubernetes::program(self.name()),
        };
        let mut command = sandbox.command(program);
        command.args(self.arguments(files)).current_dir(&files.dir);
        command
    }

    fn arguments(self, files: &Files) -> Vec<String> {
        let file = |name: &str| files.path(name);
        let kubeconfig = format!("--kubeconfig={}", files.pki_path(&format!("{}.kubeconfig", self.name())));
        match self {
            // In memory: what it holds lasts no longer than the cluster, and it waits for the disk at every write.
            Self::Etcd => vec![
                "--data-dir=/run/etcd".to_owned(),
                "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
                "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
                "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            ],
            Self::Containerd => vec!["--config".to_owned(), file("containerd.toml")],
            Self::ApiServer => files.api_server(),
            Self::ControllerManager => vec![
                kubeconfig,
                "--bind-address=127.0.0.1".to_owned(),
                "--leader-elect=false".to_owned(),
                "--use-service-account-credentials=true".to_owned(),
                // It makes this directory, by default in the machine's /usr.
                format!("--flex-volume-plugin-dir={}", file("volume-plugins")),
                format!("--service-account-private-key-file={}", files.pki.key("tokens")),
                format!("--root-ca-file={}", files.pki.certificate("ca")),
            ],
            Self::Scheduler => {
                vec![kubeconfig, "--bind-address=127.0.0.1".to_owned(), "--leader-elect=false".to_owned()]
            }
            Self::Kubelet => vec![
                kubeconfig,
                format!("--config={}", file("kubelet.json")),
                format!("--hostname-override={NODE_NAME}"),
                format!("--node-ip={NODE}"),
                format!("--root-dir={}", file("kubelet")),
                format!("--cert-dir={}", file("kubelet-pki")),
            ],
            // The limits of connection tracking are the machine's; at 0 kube-proxy leaves them alone.
            Self::KubeProxy => vec![
                kubeconfig,
                format!("--hostname-override={NODE_NAME}"),
                "--proxy-mode=iptables".to_owned(),
                format!("--cluster-cidr={PODS}"),
                "--conntrack-max-per-core=0".to_owned(),
                "--conntrack-tcp-timeout-established=0".to_owned(),
                "--conntrack-tcp-timeout-close-wait=0".to_owned(),
                "--healthz-bind-address=127.0.0.1:10256".to_owned(),
                "--metrics-bind-address=127.0.0.1:10249".to_owned(),
                "--oom-score-adj=0".to_owned(),
            ],
            Self::CoreDns => vec!["-conf".to_owned(), file("Corefile")],
        }
    }
}

impl Files {
    /// Writes them.
    pub(super) fn write(sandbox: &Sandbox) -> Result<Self> {
        let dir = sandbox.dir().to_path_buf();
        let pki = Pki::new(dir.join("pki"))?;
        let kubectl = pki.kubeconfig("admin", "admin", Some("system:masters"))?;
        pki.client("apiserver-kubelet", "kube-apiserver", Some("system:masters"))?;
        let node = format!("system:node:{NODE_NAME}");
        for (component, user, group) in [
            (Component::ControllerManager, "system:kube-controller-manager", None),
            (Component::Scheduler, "system:kube-scheduler", None),
            (Component::Kubelet, node.as_str(), Some("system:nodes")),
            (Component::KubeProxy, "system:kube-proxy", None),
            (Component::CoreDns, "system:coredns", None),
        ] {
            pki.kubeconfig(component.name(), user, group)?;
        }
        let this = Self { dir, pki, kubectl };
        fs::create_dir(this.dir.join("cni"))?;
        for (name, text) in [
            ("containerd.toml", this.containerd()?),
            ("cni/10-pods.conflist", network::cni().to_string()),
            ("kubelet.json", this.kubelet().to_string()),
            ("resolv.conf", format!("nameserver {NODE}\n")),
            ("hosts", format!("127.0.0.1 localhost\n{NODE} {NODE_NAME}\n")),
            ("Corefile", this.corefile()),
        ] {
            fs::write(this.dir.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        sandbox.output("mount", &["--bind", &this.path("hosts"), "/etc/hosts"])?;
        Ok(this)
    }

    /// The file by which an administrator finds the API server.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubectl
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn pki_path(&self, name: &str) -> String {
        self.dir.join("pki").join(name).display().to_string()
    }

    fn api_server(&self) -> Vec<String> {
        let pki = &self.pki;
        vec![
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--advertise-address={NODE}"),
            "--secure-port=6443".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--tls-cert-file={}", pki.certificate("apiserver")),
            format!("--tls-private-key-file={}", pki.key("apiserver")),
            format!("--client-ca-file={}", pki.certificate("ca")),
            format!("--kubelet-client-certificate={}", pki.certificate("apiserver-kubelet")),
            format!("--kubelet-client-key={}", pki.key("apiserver-kubelet")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--service-account-key-file={}", pki.certificate("tokens")),
            format!("--service-account-signing-key-file={}", pki.key("tokens")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
        ]
    }

    fn kubelet(&self) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": self.pki.certificate("ca") },
            },
            "authorization": { "mode": "Webhook" },
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS_SERVICE],
            "resolvConf": self.path("resolv.conf"),
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", Sandbox::name()),
            "enforceNodeAllocatable": [],
            "failCgroupV1": false,
            "failSwapOn": false,
            "localStorageCapacityIsolation": false,
            "podLogsDir": self.path("pod-logs"),
            "volumePluginDir": self.path("volume-plugins"),
            "oomScoreAdj": 0,
            // A full disk of the machine is none of the cluster's business.
            "evictionHard": {
                "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                "imagefs.available": "0%", "imagefs.inodesFree": "0%",
            },
            "imageGCHighThresholdPercent": 100,
        })
    }

    fn containerd(&self) -> Result<String> {
        let plugins = kubernetes::cni_plugins().context("the CNI plugins are gone")?;
        // `restrict_oom_score_adj`: runc fails where root may not lower that number (no CAP_SYS_RESOURCE).
        Ok(format!(
            "version = 2\n\
             root = {root:?}\n\
             state = \"/run/containerd\"\n\
             oom_score = 0\n\
             [grpc]\n  address = \"/run/containerd/containerd.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             \x20 sandbox_image = {PAUSE_IMAGE:?}\n\
             \x20 restrict_oom_score_adj = true\n\
             \x20 [plugins.\"io.containerd.grpc.v1.cri\".cni]\n    bin_dir = {plugins:?}\n    conf_dir = {conf:?}\n\
             \x20 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
             \x20   runtime_type = \"io.containerd.runc.v2\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = {opt:?}\n",
            root = self.path("containerd"),
            conf = self.path("cni"),
            opt = self.path("opt"),
        ))
    }

    fn corefile(&self) -> String {
        format!(
            ".:53 {{\n  bind {NODE}\n  errors\n  hosts {{\n    {OUTSIDE} {OUTSIDE_NAME}\n    fallthrough\n  }}\n  \
             kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {}\n    ttl 5\n  }}\n}}\n",
            self.pki_path(&format!("{}.kubeconfig", Component::CoreDns.name()))
        )
    }
}
