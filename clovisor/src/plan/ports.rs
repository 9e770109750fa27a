//! Which ports a pod listens on, and what is spoken there: services' target ports joined with containers' ports.
//!
//! A port's protocol is its service port's `appProtocol`, else what the service port's name says in Istio's form, else
//! TCP. A declared port that no service leads to is traced too, by its own name. Of several services the one that says
//! most wins, then the first by name.

use std::collections::BTreeMap;

use clovisor_trace::{Protocol, from_app_protocol, from_port_name};

use crate::cluster::{Pod, Service, ServicePort, TargetPort};

/// A listening port.
pub(super) struct Port<'a> {
    pub(super) protocol: Protocol,
    /// The service that leads there.
    pub(super) service: Option<&'a Service>,
    /// The container that declares it.
    pub(super) container: Option<&'a str>,
}

/// What tells the protocol; what comes first wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    AppProtocol,
    PortName,
    Nothing,
}

/// The ports of a pod. `services` are those that lead to it, in order of name.
pub(super) fn of<'a>(pod: &'a Pod, services: &[&'a Service]) -> BTreeMap<u16, Port<'a>> {
    let mut found: BTreeMap<u16, (Known, Port<'a>)> = BTreeMap::new();
    for service in services {
        for port in &service.ports {
            let Some(number) = target(pod, &port.target) else { continue };
            let (known, protocol) = protocol(port);
            if found.get(&number).is_none_or(|(other, _)| known < *other) {
                let container = container_of(pod, number);
                found.insert(number, (known, Port { protocol, service: Some(service), container }));
            }
        }
    }
    for container in &pod.containers {
        for port in &container.ports {
            let protocol = from_port_name(port.name.as_deref().unwrap_or_default());
            let port_of = || Port { protocol, service: None, container: Some(&container.name) };
            found.entry(port.number).or_insert_with(|| (Known::Nothing, port_of()));
        }
    }
    found.into_iter().map(|(number, (_, port))| (number, port)).collect()
}

fn protocol(port: &ServicePort) -> (Known, Protocol) {
    if let Some(app_protocol) = &port.app_protocol {
        return (Known::AppProtocol, from_app_protocol(app_protocol));
    }
    match from_port_name(port.name.as_deref().unwrap_or_default()) {
        Protocol::Tcp => (Known::Nothing, Protocol::Tcp),
        parsed => (Known::PortName, parsed),
    }
}

/// The port's number at the pod. A name is looked up in this pod, since pods of one service may differ.
fn target(pod: &Pod, target: &TargetPort) -> Option<u16> {
    match target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let mut ports = pod.containers.iter().flat_map(|container| &container.ports);
            ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.number)
        }
    }
}

/// The container that declares a port; the only one there is where none does.
fn container_of(pod: &Pod, number: u16) -> Option<&str> {
    let declares = pod.containers.iter().find(|c| c.ports.iter().any(|port| port.number == number));
    match (declares, pod.containers.as_slice()) {
        (Some(container), _) | (None, [container]) => Some(&container.name),
        _ => None,
    }
}
