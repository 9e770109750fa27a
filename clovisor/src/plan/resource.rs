//! The names that a pod's spans carry: OpenTelemetry's resource conventions for Kubernetes.
//!
//! `service.name` is the first there is of: the annotation `resource.opentelemetry.io/service.name`, the Kubernetes
//! service (as in the original), the label `app.kubernetes.io/name`, the workload, the pod.

use clovisor_trace::{Resource, Value};

use super::Setting;
use crate::cluster::{Pod, Service};

/// The resource of a pod's spans, seen through a service and a container where these are known.
pub(super) fn of(
    pod: &Pod,
    service: Option<&Service>,
    container: Option<&str>,
    setting: &Setting,
) -> Resource {
    let mut resource = Resource::service(service_name(pod, service).to_owned());
    let mut set = |key: &'static str, value: &str| {
        if !value.is_empty() {
            resource.attributes.push((key.into(), Value::from(value.to_owned())));
        }
    };
    set("service.namespace", &pod.namespace);
    set("service.instance.id", &instance(pod, container));
    set("k8s.namespace.name", &pod.namespace);
    set("k8s.pod.name", &pod.name);
    set("k8s.pod.uid", &pod.uid);
    set("k8s.node.name", &pod.node);
    set("k8s.container.name", container.unwrap_or_default());
    set("k8s.cluster.name", setting.cluster_name.as_deref().unwrap_or_default());
    if let Some(workload) = &pod.workload
        && let Some(key) = workload_key(&workload.kind)
    {
        set(key, &workload.name);
    }
    resource
}

/// What Jaeger shows as the service.
pub(super) fn service_name<'a>(pod: &'a Pod, service: Option<&'a Service>) -> &'a str {
    let label = || pod.labels.get("app.kubernetes.io/name").map(String::as_str);
    let names = [
        pod.service_name.as_deref(),
        service.map(|service| service.name.as_str()),
        label(),
        pod.workload.as_ref().map(|workload| workload.name.as_str()),
    ];
    names.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or(&pod.name)
}

/// OpenTelemetry's form for Kubernetes: namespace, pod and container, joined by dots.
fn instance(pod: &Pod, container: Option<&str>) -> String {
    match container {
        Some(container) => format!("{}.{}.{container}", pod.namespace, pod.name),
        None => format!("{}.{}", pod.namespace, pod.name),
    }
}

/// The attribute for a kind of workload, where the conventions have one.
fn workload_key(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Deployment" => "k8s.deployment.name",
        "ReplicaSet" => "k8s.replicaset.name",
        "StatefulSet" => "k8s.statefulset.name",
        "DaemonSet" => "k8s.daemonset.name",
        "Job" => "k8s.job.name",
        "CronJob" => "k8s.cronjob.name",
        "ReplicationController" => "k8s.replicationcontroller.name",
        _ => return None,
    })
}
