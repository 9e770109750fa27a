//! The CNI cache: the result files that libcni (in containerd and CRI-O) keeps of each network that it gave to
//! a pod, and takes away with it. One JSON object a file, `cachedInfo` in libcni/api.go of
//! github.com/containernetworking/cni; `netns` is there since 1.2, before that the result's `sandbox` is used.
//!
//! It refuses nothing loudly: a file that cannot be read or is no such object is left out, for other ways of
//! finding remain. It never trusts a file alone: one can outlive its pod (a killed runtime, a reboot).

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

/// A file is a few kilobytes; a longer one is not libcni's.
const MAX_FILE: u64 = 1 << 20;

/// One network of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The pod's UID. Static pods have that of their file here, not that of their mirror in the API.
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// File name of the pod's network namespace, in the directory of namespaces.
    pub(super) netns: String,
    /// Name of the interface in the pod.
    pub(super) interface: String,
    /// Names of the interfaces that the plugins made on the host: bridges and veths.
    pub(super) host_interfaces: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    modified: SystemTime,
}

/// All entries of the cache.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Vec<Entry>,
    by_uid: HashMap<String, Vec<usize>>,
    by_name: HashMap<(String, String), Vec<usize>>,
    /// Why nothing could be read.
    pub(super) fault: Option<String>,
}

impl Cache {
    /// Reads all files of `directory`. Blocks: about 20 microseconds a file.
    pub(super) fn read(directory: &Path) -> Self {
        let files = match std::fs::read_dir(directory) {
            Ok(files) => files,
            Err(error) => return Self { fault: Some(error.to_string()), ..Self::default() },
        };
        let mut cache = Self::default();
        for file in files.flatten() {
            if let Some(entry) = read_file(&file.path()) {
                cache.entries.push(entry);
            }
        }
        // The newest first: a sandbox made anew has the same UID as the one before.
        cache.entries.sort_by_key(|entry| std::cmp::Reverse(entry.modified));
        for (index, entry) in cache.entries.iter().enumerate() {
            if !entry.uid.is_empty() {
                cache.by_uid.entry(entry.uid.clone()).or_default().push(index);
            }
            let name = (entry.namespace.clone(), entry.name.clone());
            cache.by_name.entry(name).or_default().push(index);
        }
        cache
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Entries of the pod with this UID, the newest first.
    pub(super) fn of_uid(&self, uid: &str) -> Vec<Entry> {
        self.pick(self.by_uid.get(uid))
    }

    /// Entries of pods of this name, the newest first: maybe of an earlier pod of the same name.
    pub(super) fn of_name(&self, namespace: &str, name: &str) -> Vec<Entry> {
        self.pick(self.by_name.get(&(namespace.to_owned(), name.to_owned())))
    }

    fn pick(&self, indexes: Option<&Vec<usize>>) -> Vec<Entry> {
        indexes.into_iter().flatten().filter_map(|&index| self.entries.get(index).cloned()).collect()
    }
}

fn read_file(path: &Path) -> Option<Entry> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return None;
    }
    let text = std::fs::read(path).ok()?;
    parse(&text, metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH))
}

fn parse(text: &[u8], modified: SystemTime) -> Option<Entry> {
    let file: Value = serde_json::from_slice(text).ok()?;
    if file["kind"] != "cniCacheV1" {
        return None;
    }
    let interface = file["ifName"].as_str()?.to_owned();
    // containerd gives each pod its loopback by CNI, too.
    if interface == "lo" {
        return None;
    }
    let argument = |key: &str| {
        let mut pairs = file["cniArgs"].as_array().into_iter().flatten();
        let pair = pairs.find(|pair| pair[0] == key);
        pair.and_then(|pair| pair[1].as_str()).unwrap_or_default().to_owned()
    };
    let result = &file["result"];
    let interfaces = || result["interfaces"].as_array().into_iter().flatten();
    let sandbox = |interface: &Value| interface["sandbox"].as_str().unwrap_or_default().to_owned();
    let netns = file["netns"].as_str().map(str::to_owned);
    let netns = netns.or_else(|| interfaces().map(sandbox).find(|sandbox| !sandbox.is_empty()))?;
    let on_host = interfaces().filter(|interface| sandbox(interface).is_empty());
    Some(Entry {
        uid: argument("K8S_POD_UID"),
        namespace: argument("K8S_POD_NAMESPACE"),
        name: argument("K8S_POD_NAME"),
        // The runtime's path is the host's (/var/run/netns/NAME); ours may be mounted elsewhere.
        netns: PathBuf::from(netns).file_name()?.to_str()?.to_owned(),
        interface,
        host_interfaces: on_host.filter_map(|one| one["name"].as_str()).map(str::to_owned).collect(),
        addresses: addresses(result),
        modified,
    })
}

/// `ips` since CNI 0.3; `ip4` and `ip6` before.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let listed = result["ips"].as_array().into_iter().flatten().map(|ip| &ip["address"]);
    let old = [&result["ip4"]["ip"], &result["ip6"]["ip"]];
    let with_prefix = listed.chain(old).filter_map(Value::as_str);
    with_prefix.filter_map(|text| text.split('/').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As containerd 1.6 with the bridge plugin writes it.
    const BRIDGE: &str = r#"{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth0",
        "networkName":"pods","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","default"],
        ["K8S_POD_NAME","web"],["K8S_POD_INFRA_CONTAINER_ID","c1"],["K8S_POD_UID","u-1"]],
        "result":{"cniVersion":"1.0.0","dns":{},"interfaces":[{"mac":"aa","name":"cni0"},
        {"mac":"bb","name":"veth12"},{"mac":"cc","name":"eth0","sandbox":"/var/run/netns/cni-77"}],
        "ips":[{"address":"10.244.0.5/24","gateway":"10.244.0.1","interface":2}]}}"#;

    #[test]
    fn what_libcni_writes_is_read() {
        let entry = parse(BRIDGE.as_bytes(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(
            (entry.uid.as_str(), entry.namespace.as_str(), entry.name.as_str()),
            ("u-1", "default", "web")
        );
        assert_eq!((entry.netns.as_str(), entry.interface.as_str()), ("cni-77", "eth0"));
        assert_eq!(entry.host_interfaces, ["cni0", "veth12"]);
        assert_eq!(entry.addresses, ["10.244.0.5".parse::<IpAddr>().unwrap()]);
        // libcni 1.2 names the namespace itself, plugins of CNI 0.2 name no interfaces.
        let newer = r#"{"kind":"cniCacheV1","ifName":"eth0","netns":"/run/netns/x",
            "result":{"ip4":{"ip":"10.1.2.3/24"}}}"#;
        let entry = parse(newer.as_bytes(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((entry.netns.as_str(), entry.uid.as_str()), ("x", ""));
        assert_eq!(entry.addresses, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn what_is_no_pods_network_is_left_out() {
        let loopback = BRIDGE.replace(r#""ifName":"eth0""#, r#""ifName":"lo""#);
        let no_namespace = BRIDGE.replace(r#","sandbox":"/var/run/netns/cni-77""#, "");
        let other_kind = BRIDGE.replace("cniCacheV1", "cniCacheV9");
        for text in
            [loopback.as_str(), &no_namespace, &other_kind, "{}", "[]", "null", "", "{\"kind\":", "\u{0}"]
        {
            assert_eq!(parse(text.as_bytes(), SystemTime::UNIX_EPOCH), None, "{text}");
        }
    }
}
