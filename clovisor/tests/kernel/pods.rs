//! Pods: network namespaces of their own with an `eth0`, whose other end is in the namespace of the host, and
//! a CNI cache that says of them what libcni (in containerd) writes. Dropping removes all.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use clovisor::datapath::veth::{Paths, Wanted};

use crate::netns::{Net, try_run};

/// One pod.
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) netns: String,
    /// Name of its interface on the host.
    pub(crate) veth: String,
    pub(crate) address: IpAddr,
    addresses: [IpAddr; 1],
}

impl Pod {
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted { uid: &self.uid, namespace: "default", name: &self.name, addresses: &self.addresses }
    }

    /// The name of its file in the cache: network, container, interface.
    pub(crate) fn cache_file(&self) -> String {
        format!("pods-{}-eth0", self.uid)
    }

    /// What the bridge plugin answers; ptp's differs in having no bridge.
    pub(crate) fn cached(&self, with_bridge: bool) -> String {
        let Self { uid, name, netns, veth, address, .. } = self;
        let bridge = if with_bridge { r#"{"mac":"02:00:00:00:00:01","name":"cni0"},"# } else { "" };
        let index = if with_bridge { 2 } else { 1 };
        format!(
            r#"{{"kind":"cniCacheV1","containerId":"c-{uid}","config":"eyJjbmlWZXJzaW9uIjoiMS4wLjAifQ==",
"ifName":"eth0","networkName":"pods","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","default"],
["K8S_POD_NAME","{name}"],["K8S_POD_INFRA_CONTAINER_ID","c-{uid}"],["K8S_POD_UID","{uid}"]],
"capabilityArgs":{{"dns":{{}},"portMappings":[]}},"result":{{"cniVersion":"1.0.0","dns":{{}},
"interfaces":[{bridge}{{"mac":"02:00:00:00:00:02","name":"{veth}"}},
{{"mac":"02:00:00:00:00:03","name":"eth0","sandbox":"/var/run/netns/{netns}"}}],
"ips":[{{"address":"{address}/24","gateway":"10.88.0.1","interface":{index}}}],"routes":[{{"dst":"0.0.0.0/0"}}]}}}}"#
        )
    }
}

/// Pods of one host, and the files about them.
pub(crate) struct Pods {
    pub(crate) pods: Vec<Pod>,
    pub(crate) paths: Paths,
    directory: PathBuf,
}

impl Pods {
    /// Makes namespaces, pairs and addresses, and one cache file a pod (every other in ptp's style).
    pub(crate) fn new(net: &Net, count: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("cvp{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&unique);
        let paths =
            Paths { cni_cache: directory.join("results"), proc: directory.join("proc"), ..Paths::default() };
        std::fs::create_dir_all(&paths.cni_cache).unwrap();
        std::fs::create_dir_all(&paths.proc).unwrap();
        std::fs::set_permissions(&paths.cni_cache, Permissions::from_mode(0o700)).unwrap();
        let pod = |number: u32| {
            let address = IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 88, 0, 10)) + number));
            Pod {
                uid: format!("{number:08x}-6f5d-4f0e-9d5c-5a4c6b6f0c11"),
                name: format!("web-{number}"),
                netns: format!("{unique}-{number}"),
                veth: format!("veth{number:x}p"),
                address,
                addresses: [address],
            }
        };
        let pods = Self { pods: (0..count).map(pod).collect(), paths, directory };
        let made: String = pods.pods.iter().map(|pod| format!("netns add {}\n", pod.netns)).collect();
        ip_batch("", &made);
        pods.connect(net);
        for (number, pod) in pods.pods.iter().enumerate() {
            pods.write(&pod.cache_file(), &pod.cached(number % 2 == 0));
        }
        pods
    }

    /// Makes the pairs.
    pub(crate) fn connect(&self, net: &Net) {
        let mut links = String::new();
        for Pod { veth, netns, .. } in &self.pods {
            writeln!(links, "link add {veth} type veth peer name eth0 netns {netns}").unwrap();
            writeln!(links, "link set {veth} up").unwrap();
        }
        ip_batch(&net.host, &links);
        for Pod { netns, address, .. } in &self.pods {
            ip_batch(netns, &format!("link set eth0 up\naddr add {address}/32 dev eth0\n"));
        }
    }

    /// Deletes the pairs.
    pub(crate) fn disconnect(&self, net: &Net) {
        let links: String = self.pods.iter().map(|pod| format!("link del {}\n", pod.veth)).collect();
        ip_batch(&net.host, &links);
    }

    /// Writes a file of the CNI cache.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let file = self.paths.cni_cache.join(name);
        std::fs::write(&file, text).unwrap();
        // As libcni has it.
        std::fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    }

    /// Removes a file of the CNI cache.
    pub(crate) fn forget(&self, pod: &Pod) {
        std::fs::remove_file(self.paths.cni_cache.join(pod.cache_file())).unwrap();
    }

    /// A process of the pod, as `/proc` shows it.
    pub(crate) fn add_process(&self, pid: u32, cgroup: &str, namespace: &str) {
        let process = self.paths.proc.join(pid.to_string());
        std::fs::create_dir_all(process.join("ns")).unwrap();
        std::fs::write(process.join("cgroup"), cgroup).unwrap();
        std::os::unix::fs::symlink(namespace, process.join("ns/net")).unwrap();
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for pod in &self.pods {
            try_run("ip", &["netns", "del", &pod.netns]);
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Runs `ip` commands of the namespace in one process; the text has one a line. All must succeed.
pub(crate) fn ip_batch(namespace: &str, commands: &str) {
    let mut ip = Command::new("ip");
    if !namespace.is_empty() {
        ip.args(["-n", namespace]);
    }
    let mut child = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip -n {namespace} -batch: {error}");
}
