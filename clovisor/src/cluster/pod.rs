//! Reads a [`Pod`] from the object of the Kubernetes API (core/v1 Pod).
//!
//! It refuses pods without UID or name, which the API never sends, and leaves out what cannot be used: ports that
//! are not TCP, addresses and port numbers that are none. Heartbeats and conditions are not read, so that they change nothing.

use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{Container, ContainerPort, Pod, Workload};

/// The user's own word for `service.name` (OpenTelemetry semantic conventions, "Kubernetes attributes").
const SERVICE_NAME: &str = "resource.opentelemetry.io/service.name";
/// What the Deployment controller puts on its pods, and at the end of its ReplicaSets' names.
const TEMPLATE_HASH: &str = "pod-template-hash";

impl Pod {
    /// Reads a pod; `None` without UID or name.
    #[must_use]
    pub fn read(pod: &api::Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let annotation = meta.annotations.as_ref().and_then(|all| all.get(SERVICE_NAME));
        let spec = pod.spec.as_ref();
        Some(Self {
            uid: meta.uid.clone().filter(|uid| !uid.is_empty())?,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().filter(|name| !name.is_empty())?,
            node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            service_name: annotation.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()),
            addresses: pod.status.as_ref().map(addresses).unwrap_or_default(),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or_default(),
            ended: pod.status.as_ref().is_some_and(ended),
            workload: workload(meta),
            containers: spec.map(containers).unwrap_or_default(),
        })
    }
}

fn addresses(status: &api::PodStatus) -> Vec<std::net::IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let all: Vec<_> = all.filter_map(|ip| ip.parse().ok()).collect();
    if !all.is_empty() {
        return all;
    }
    status.pod_ip.iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn ended(status: &api::PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The controller that made it. A ReplicaSet whose name ends in the pod's template hash was made by the Deployment of
/// the rest of that name; that a Job is a CronJob's, or a ReplicaSet a Rollout's, cannot be told without asking.
fn workload(meta: &ObjectMeta) -> Option<Workload> {
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    // A static pod belongs to its node, which is no workload.
    if owner.kind == "Node" {
        return None;
    }
    let hash = meta.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
    if let ("ReplicaSet", Some(hash)) = (owner.kind.as_str(), hash)
        && let Some(name) = owner.name.strip_suffix(hash.as_str()).and_then(|name| name.strip_suffix('-'))
        && !hash.is_empty()
        && !name.is_empty()
    {
        return Some(Workload { kind: "Deployment".to_owned(), name: name.to_owned() });
    }
    Some(Workload { kind: owner.kind.clone(), name: owner.name.clone() })
}

/// Those that run while the pod runs: an init container that is restarted always is a sidecar (Kubernetes 1.29).
fn containers(spec: &api::PodSpec) -> Vec<Container> {
    let sidecar = |one: &&api::Container| one.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    spec.containers.iter().chain(sidecars).map(container).collect()
}

fn container(container: &api::Container) -> Container {
    let ports = container.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref()));
    let read = |port: &api::ContainerPort| {
        Some(ContainerPort { name: port.name.clone(), number: port_number(port.container_port)? })
    };
    Container {
        name: container.name.clone(),
        image: container.image.clone(),
        ports: ports.filter_map(read).collect(),
    }
}

/// Whether a port is TCP, which it is too if it does not say.
pub(super) fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// A port's number, if it is one.
pub(super) fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|&number| number != 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(manifest: Value) -> Option<Pod> {
        Pod::read(&serde_json::from_value(manifest).unwrap())
    }

    /// A pod `p` of which only `metadata`'s further fields matter.
    fn with_metadata(metadata: &Value) -> Pod {
        let mut all = json!({"uid": "u", "name": "p", "namespace": "n"});
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        read(json!({"metadata": all})).unwrap()
    }

    #[test]
    fn a_whole_pod() {
        let pod = read(json!({
            "metadata": {
                "uid": "u-1", "name": "web-5d9c-x2x4", "namespace": "shop",
                "labels": {"app": "web", "pod-template-hash": "5d9c"},
                "annotations": {"resource.opentelemetry.io/service.name": " frontend ", "else": "x"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9c", "uid": "r", "controller": true}],
            },
            "spec": {
                "nodeName": "n1",
                "initContainers": [
                    {"name": "setup", "ports": [{"containerPort": 1}]},
                    {"name": "proxy", "image": "envoy:1", "restartPolicy": "Always", "ports": [{"containerPort": 15001}]},
                ],
                "containers": [{"name": "web", "image": "web:2", "ports": [
                    {"name": "http", "containerPort": 8080},
                    {"containerPort": 8443, "protocol": "TCP"},
                    {"containerPort": 53, "protocol": "UDP"},
                    {"containerPort": 5000, "protocol": "SCTP"},
                    {"containerPort": 0}, {"containerPort": 65536},
                ]}],
            },
            "status": {"phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00::5"}]},
        }));
        let port = |name: Option<&str>, number| ContainerPort { name: name.map(str::to_owned), number };
        let expected = Pod {
            uid: "u-1".into(),
            namespace: "shop".into(),
            name: "web-5d9c-x2x4".into(),
            node: "n1".into(),
            labels: [("app".into(), "web".into()), ("pod-template-hash".into(), "5d9c".into())].into(),
            service_name: Some("frontend".into()),
            addresses: vec!["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            host_network: false,
            ended: false,
            workload: Some(Workload { kind: "Deployment".into(), name: "web".into() }),
            containers: vec![
                Container {
                    name: "web".into(),
                    image: Some("web:2".into()),
                    ports: vec![port(Some("http"), 8080), port(None, 8443)],
                },
                Container {
                    name: "proxy".into(),
                    image: Some("envoy:1".into()),
                    ports: vec![port(None, 15001)],
                },
            ],
        };
        assert_eq!(pod, Some(expected));
    }

    #[test]
    fn without_uid_or_name_it_is_none() {
        assert_eq!(read(json!({"metadata": {"name": "p"}})), None);
        assert_eq!(read(json!({"metadata": {"uid": "u"}})), None);
        assert_eq!(read(json!({"metadata": {"uid": "", "name": "p"}})), None);
        assert_eq!(
            read(json!({"metadata": {"uid": "u", "name": "p"}})),
            Some(Pod { uid: "u".into(), name: "p".into(), ..Pod::default() })
        );
    }

    #[test]
    fn who_made_it() {
        let owner = |kind: &str, name: &str, controller: Value| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "o", "controller": controller});
        let hash = json!({"pod-template-hash": "abc"});
        #[rustfmt::skip]
        let table = [
            (json!([]), json!({}), None),
            (json!([owner("ReplicaSet", "web-abc", json!(true))]), hash.clone(), Some(("Deployment", "web"))),
            (json!([owner("ReplicaSet", "web-a-abc", json!(true))]), hash.clone(), Some(("Deployment", "web-a"))),
            (json!([owner("ReplicaSet", "web-xyz", json!(true))]), hash.clone(), Some(("ReplicaSet", "web-xyz"))),
            (json!([owner("ReplicaSet", "webabc", json!(true))]), hash.clone(), Some(("ReplicaSet", "webabc"))),
            (json!([owner("ReplicaSet", "-abc", json!(true))]), hash.clone(), Some(("ReplicaSet", "-abc"))),
            (json!([owner("ReplicaSet", "web-abc", json!(true))]), json!({}), Some(("ReplicaSet", "web-abc"))),
            (json!([owner("ReplicaSet", "web-", json!(true))]), json!({"pod-template-hash": ""}), Some(("ReplicaSet", "web-"))),
            (json!([owner("StatefulSet", "db-abc", json!(true))]), hash.clone(), Some(("StatefulSet", "db-abc"))),
            (json!([owner("Job", "backup-28312", json!(true))]), json!({}), Some(("Job", "backup-28312"))),
            (json!([owner("Node", "n1", json!(true))]), json!({}), None),
            (json!([owner("Thing", "t", json!(null))]), json!({}), None),
            (json!([owner("Thing", "t", json!(false)), owner("DaemonSet", "d", json!(true))]), json!({}), Some(("DaemonSet", "d"))),
        ];
        for (owners, labels, expected) in table {
            let pod = with_metadata(&json!({"ownerReferences": owners, "labels": labels}));
            let got = pod.workload.as_ref().map(|made| (made.kind.as_str(), made.name.as_str()));
            assert_eq!(got, expected, "{owners} {labels}");
        }
    }

    #[test]
    fn addresses_phase_and_network() {
        #[rustfmt::skip]
        let table: [(Value, &[&str], bool); 8] = [
            (json!({}), &[], false),
            (json!({"phase": "Pending"}), &[], false),
            (json!({"phase": "Running", "podIP": "10.0.0.1"}), &["10.0.0.1"], false),
            (json!({"podIP": "10.0.0.1", "podIPs": []}), &["10.0.0.1"], false),
            (json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "fd00::1"}]}), &["fd00::1"], false),
            (json!({"podIP": "nonsense"}), &[], false),
            (json!({"phase": "Succeeded", "podIP": "10.0.0.1"}), &["10.0.0.1"], true),
            (json!({"phase": "Failed"}), &[], true),
        ];
        for (status, addresses, ended) in table {
            let pod = read(json!({"metadata": {"uid": "u", "name": "p"}, "status": status})).unwrap();
            let expected: Vec<std::net::IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!((pod.addresses, pod.ended), (expected, ended), "{status}");
        }
        let host =
            json!({"metadata": {"uid": "u", "name": "p"}, "spec": {"containers": [], "hostNetwork": true}});
        assert!(read(host).unwrap().host_network);
    }

    #[test]
    fn an_empty_name_of_a_service_is_none() {
        let annotated =
            |name: &str| with_metadata(&json!({"annotations": {SERVICE_NAME: name}})).service_name;
        assert_eq!(annotated("  "), None);
        assert_eq!(annotated("shop"), Some("shop".to_owned()));
    }

    #[test]
    fn a_heartbeat_changes_nothing() {
        let at = |time: &str| {
            read(json!({
                "metadata": {"uid": "u", "name": "p", "resourceVersion": time},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": time}]},
            }))
        };
        assert_eq!(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:10Z"));
    }
}
