//! Reads a [`Service`] from the object of the Kubernetes API (core/v1 Service).
//!
//! It refuses services without a name, which the API never sends, and leaves out ports that are not TCP. A service of
//! type `ExternalName` is only a DNS name: it has neither pods nor addresses nor ports here, whatever its manifest says.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::util::intstr::IntOrString};

use super::{
    Service, ServicePort, TargetPort,
    pod::{is_tcp, port_number},
};

impl Service {
    /// Reads a service; `None` without a name.
    #[must_use]
    pub fn read(service: &api::Service) -> Option<Self> {
        let named = Self {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            name: service.metadata.name.clone().filter(|name| !name.is_empty())?,
            ..Self::default()
        };
        let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"));
        let Some(spec) = spec else { return Some(named) };
        Some(Self {
            selector: spec.selector.clone().unwrap_or_default(),
            addresses: addresses(spec),
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
            ..named
        })
    }
}

/// A headless service says `None` where the others have an address, which is no address either.
fn addresses(spec: &api::ServiceSpec) -> BTreeSet<std::net::IpAddr> {
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|ip| ip.parse().ok()).collect()
}

fn port(port: &api::ServicePort) -> Option<ServicePort> {
    let number = port_number(port.port).filter(|_| is_tcp(port.protocol.as_deref()))?;
    let target = match &port.target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => TargetPort::Number(port_number(*target)?),
        Some(IntOrString::String(name)) if name.is_empty() => TargetPort::Number(number),
        Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
    };
    let app_protocol = port.app_protocol.clone();
    Some(ServicePort { name: port.name.clone(), app_protocol, port: number, target })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: &Value) -> Service {
        let manifest = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
        Service::read(&serde_json::from_value(manifest).unwrap()).unwrap()
    }

    #[test]
    fn a_whole_service() {
        let service = read(&json!({
            "type": "ClusterIP", "selector": {"app": "web"}, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"],
            "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"},
                {"name": "tcp-x", "appProtocol": "redis", "port": 6379, "targetPort": 16379},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
        }));
        let expected = Service {
            namespace: "shop".into(),
            name: "web".into(),
            selector: [("app".into(), "web".into())].into(),
            addresses: ["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()].into(),
            ports: vec![
                ServicePort {
                    name: Some("http".into()),
                    app_protocol: None,
                    port: 80,
                    target: TargetPort::Name("web".into()),
                },
                ServicePort {
                    name: Some("tcp-x".into()),
                    app_protocol: Some("redis".into()),
                    port: 6379,
                    target: TargetPort::Number(16379),
                },
            ],
        };
        assert_eq!(service, expected);
    }

    #[test]
    fn target_ports() {
        #[rustfmt::skip]
        let table = [
            (json!({"port": 80}), Some(TargetPort::Number(80))),
            (json!({"port": 80, "targetPort": 0}), Some(TargetPort::Number(80))),
            (json!({"port": 80, "targetPort": ""}), Some(TargetPort::Number(80))),
            (json!({"port": 80, "targetPort": 8080}), Some(TargetPort::Number(8080))),
            (json!({"port": 80, "targetPort": "http"}), Some(TargetPort::Name("http".into()))),
            (json!({"port": 80, "targetPort": 70000}), None),
            (json!({"port": 0, "targetPort": 80}), None),
            (json!({"port": 80, "protocol": "SCTP"}), None),
        ];
        for (port, expected) in table {
            let ports = read(&json!({"ports": [port]})).ports;
            assert_eq!(ports.first().map(|port| port.target.clone()), expected, "{port}");
        }
    }

    #[test]
    fn addresses_of_the_kinds_of_services() {
        #[rustfmt::skip]
        let table: [(Value, &[&str]); 5] = [
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), &[]),
            (json!({"clusterIP": ""}), &[]),
            (json!({"clusterIP": "10.96.0.1"}), &["10.96.0.1"]),
            (json!({"type": "NodePort", "clusterIPs": ["10.96.0.1"]}), &["10.96.0.1"]),
            (json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": "10.96.0.1"}), &[]),
        ];
        for (spec, addresses) in table {
            let expected = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(read(&spec).addresses, expected, "{spec}");
        }
    }

    #[test]
    fn an_external_name_selects_nothing() {
        let spec = json!({"type": "ExternalName", "selector": {"a": "b"}, "ports": [{"port": 80}]});
        let expected = Service { namespace: "shop".into(), name: "web".into(), ..Service::default() };
        assert_eq!(read(&spec), expected);
        assert_eq!(read(&json!({})), expected);
        assert_eq!(Service::read(&api::Service::default()), None);
    }
}
