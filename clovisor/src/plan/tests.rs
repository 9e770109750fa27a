//! Every rule that users are told, as a row.

use clovisor_trace::{Protocol::Http, Protocol::Tcp, Value};

use super::*;
use crate::cluster::{Container, ContainerPort, ServicePort, TargetPort, Workload};

fn pod(namespace: &str, name: &str, labels: &[(&str, &str)], ports: &[(&str, u16)]) -> Pod {
    let port = |&(name, number): &(&str, u16)| ContainerPort {
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        number,
    };
    Pod {
        uid: format!("uid-{namespace}-{name}"),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        node: "node-1".to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        containers: vec![Container {
            name: "web".to_owned(),
            image: None,
            ports: ports.iter().map(port).collect(),
        }],
        ..Pod::default()
    }
}

fn service(name: &str, selector: &[(&str, &str)], ports: Vec<ServicePort>) -> Service {
    Service {
        namespace: DEFAULT_NAMESPACE.to_owned(),
        name: name.to_owned(),
        selector: selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        addresses: ["10.96.0.7".parse().unwrap()].into(),
        ports,
    }
}

fn to(name: &str, target: TargetPort) -> ServicePort {
    ServicePort { name: Some(name.to_owned()), app_protocol: None, port: 80, target }
}

fn number(number: u16) -> TargetPort {
    TargetPort::Number(number)
}

fn named(name: &str) -> TargetPort {
    TargetPort::Name(name.to_owned())
}

fn cluster(pods: impl IntoIterator<Item = Pod>, services: impl IntoIterator<Item = Service>) -> Cluster {
    Cluster {
        pods: pods.into_iter().map(|pod| (pod.uid.clone(), Arc::new(pod))).collect(),
        services: services
            .into_iter()
            .map(|service| ((service.namespace.clone(), service.name.clone()), Arc::new(service)))
            .collect(),
    }
}

fn rule(namespace: &str, label: Option<(&str, &str)>) -> LabelRule {
    let label = label.map(|(key, value)| (key.to_owned(), value.to_owned()));
    LabelRule { namespace: namespace.to_owned(), label }
}

fn egress(address: Option<&str>, port: u16, prefix: Option<&str>) -> EgressTarget {
    let address = address.map(|address| address.parse().unwrap());
    EgressTarget { address, port, protocol: Http, pod_prefix: prefix.map(str::to_owned) }
}

fn names(desired: &Desired) -> Vec<&str> {
    desired.pods.values().map(|pod| pod.name.as_str()).collect()
}

fn ports(desired: &Desired) -> Vec<(u16, Protocol)> {
    let pods = desired.pods.values();
    pods.flat_map(|pod| pod.ports.iter().map(|(number, port)| (*number, port.protocol))).collect()
}

#[test]
fn which_pods() {
    let pods = || {
        [
            pod("default", "a", &[("app", "a")], &[("", 80)]),
            pod("shop", "b", &[("app", "b"), ("app.kubernetes.io/part-of", "x")], &[("", 80)]),
            pod("shop", "c", &[("app", "c")], &[("", 80)]),
        ]
    };
    for (labels, expected) in [
        (vec![], vec!["a"]),
        (vec![rule("default", None)], vec!["a"]),
        (vec![rule("shop", None)], vec!["b", "c"]),
        (vec![rule("shop", Some(("app", "c")))], vec!["c"]),
        (vec![rule("shop", Some(("app.kubernetes.io/part-of", "x")))], vec!["b"]),
        (vec![rule("shop", Some(("app", "a")))], vec![]),
        (vec![rule("default", None), rule("shop", Some(("app", "b")))], vec!["a", "b"]),
        (vec![rule("sho", None)], vec![]),
    ] {
        let config = Config { labels: labels.clone(), ..Config::default() };
        let desired = desire(&config, &cluster(pods(), []), &Setting::default());
        assert_eq!(names(&desired), expected, "{labels:?}");
    }
}

#[test]
fn which_ports_and_protocols() {
    let a = [("app", "a")];
    let with_app_protocol = |name: &str, app_protocol: &str| ServicePort {
        app_protocol: Some(app_protocol.to_owned()),
        ..to(name, number(80))
    };
    let declared = |list: &[(&str, u16)]| pod("default", "a", &a, list);
    for (what, pod, services, expected) in [
        ("no service: by the container's port", declared(&[("", 80)]), vec![], vec![(80, Tcp)]),
        ("no service: by that port's name", declared(&[("http-x", 80)]), vec![], vec![(80, Http)]),
        (
            "by number",
            declared(&[("", 80)]),
            vec![service("s", &a, vec![to("http", number(80))])],
            vec![(80, Http)],
        ),
        (
            "by name",
            declared(&[("web", 8080)]),
            vec![service("s", &a, vec![to("http", named("web"))])],
            vec![(8080, Http)],
        ),
        (
            "a name that no container has",
            declared(&[]),
            vec![service("s", &a, vec![to("http", named("web"))])],
            vec![],
        ),
        (
            "not declared",
            declared(&[]),
            vec![service("s", &a, vec![to("http-1234", number(81))])],
            vec![(81, Http)],
        ),
        (
            "unnamed",
            declared(&[("", 80)]),
            vec![service("s", &a, vec![ServicePort { name: None, ..to("", number(80)) }])],
            vec![(80, Tcp)],
        ),
        (
            "the service's name wins",
            declared(&[("http", 80)]),
            vec![service("s", &a, vec![to("tcp", number(80))])],
            vec![(80, Tcp)],
        ),
        (
            "appProtocol wins",
            declared(&[]),
            vec![service("s", &a, vec![with_app_protocol("tcp", "http")])],
            vec![(80, Http)],
        ),
        (
            "appProtocol wins, both ways",
            declared(&[]),
            vec![service("s", &a, vec![with_app_protocol("http", "https")])],
            vec![(80, Tcp)],
        ),
        (
            "the service that says more",
            declared(&[]),
            vec![service("a", &a, vec![to("x", number(80))]), service("b", &a, vec![to("http", number(80))])],
            vec![(80, Http)],
        ),
        (
            "another's service",
            declared(&[("", 80)]),
            vec![service("s", &[("app", "b")], vec![to("http", number(80))])],
            vec![(80, Tcp)],
        ),
        (
            "no selector",
            declared(&[("", 80)]),
            vec![service("s", &[], vec![to("http", number(80))])],
            vec![(80, Tcp)],
        ),
        (
            "default/kubernetes",
            declared(&[("", 80)]),
            vec![service("kubernetes", &a, vec![to("http", number(80))])],
            vec![(80, Tcp)],
        ),
    ] {
        let desired = desire(&Config::default(), &cluster([pod], services), &Setting::default());
        assert_eq!(ports(&desired), expected, "{what}");
    }
}

#[test]
fn which_egress_targets() {
    let config = Config {
        egress: vec![
            egress(None, 80, None),
            egress(Some("192.0.2.1"), 81, Some("front")),
            egress(Some("192.0.2.1"), 82, Some("back")),
        ],
        ..Config::default()
    };
    let front = pod("default", "front-1", &[], &[]);
    let desired = desire(&config, &cluster([front], []), &Setting::default());
    let targets: Vec<_> = desired.pods.values().flat_map(|pod| pod.egress.keys().copied()).collect();
    assert_eq!(targets, [(None, 80), (Some("192.0.2.1".parse().unwrap()), 81)]);
}

#[test]
fn pods_that_cannot_be_traced_are_said() {
    let on_host = Pod { host_network: true, ..pod("default", "on-host", &[], &[("", 80)]) };
    let ended = Pod { ended: true, ..pod("default", "ended", &[], &[("", 80)]) };
    let elsewhere = Pod { host_network: true, ..pod("other", "elsewhere", &[], &[]) };
    let pods = [on_host, ended, elsewhere, pod("default", "silent", &[], &[])];
    let desired = desire(&Config::default(), &cluster(pods, []), &Setting::default());
    assert!(desired.pods.is_empty());
    let skipped: Vec<_> =
        desired.skipped.iter().map(|skipped| (skipped.name.as_str(), skipped.reason)).collect();
    assert_eq!(skipped, [("on-host", Reason::HostNetwork), ("silent", Reason::NothingToTrace)]);
}

#[test]
fn whose_spans() {
    let deployment = Workload { kind: "Deployment".to_owned(), name: "web-d".to_owned() };
    let plain = || pod("default", "p", &[("app", "a")], &[("", 80)]);
    let labelled = || pod("default", "p", &[("app", "a"), ("app.kubernetes.io/name", "lab")], &[("", 80)]);
    let of_deployment = || Pod { workload: Some(deployment.clone()), ..plain() };
    let annotated = || Pod { service_name: Some("noted".to_owned()), ..of_deployment() };
    let svc = || vec![service("svc", &[("app", "a")], vec![to("http", number(80))])];
    for (pod, services, expected) in [
        (plain(), vec![], "p"),
        (of_deployment(), vec![], "web-d"),
        (labelled(), vec![], "lab"),
        (labelled(), svc(), "svc"),
        (annotated(), svc(), "noted"),
    ] {
        let desired = desire(&Config::default(), &cluster([pod], services), &Setting::default());
        let plan = desired.pods.values().next().unwrap();
        assert_eq!(plan.ports[&80].resource.service_name(), expected);
        assert_eq!(plan.resource.service_name(), expected);
    }

    let setting = Setting { cluster_name: Some("east".to_owned()) };
    let desired = desire(&Config::default(), &cluster([of_deployment()], svc()), &setting);
    let plan = desired.pods.values().next().unwrap();
    let attributes: Vec<_> = plan.ports[&80]
        .resource
        .attributes
        .iter()
        .map(|(key, value)| (key.as_ref(), value.clone()))
        .collect();
    let expected = [
        ("service.name", "svc"),
        ("service.namespace", "default"),
        ("service.instance.id", "default.p.web"),
        ("k8s.namespace.name", "default"),
        ("k8s.pod.name", "p"),
        ("k8s.pod.uid", "uid-default-p"),
        ("k8s.node.name", "node-1"),
        ("k8s.container.name", "web"),
        ("k8s.cluster.name", "east"),
        ("k8s.deployment.name", "web-d"),
    ];
    assert_eq!(attributes, expected.map(|(key, value)| (key, Value::from(value))));
}

#[test]
fn who_the_peers_are() {
    let web = pod("default", "p", &[("app", "a")], &[("", 80)]);
    let host = Pod {
        host_network: true,
        addresses: vec!["10.0.0.99".parse().unwrap()],
        ..pod("default", "h", &[], &[])
    };
    let peers =
        Peers::of(&cluster([web, host], [service("svc", &[("app", "a")], vec![to("http", number(80))])]));
    let name = |address: &str| peers.get(address.parse().unwrap()).map(|peer| peer.service.to_string());
    assert_eq!(name("10.96.0.7").as_deref(), Some("svc"));
    assert_eq!(name("10.0.0.1").as_deref(), Some("svc"));
    assert_eq!(name("::ffff:10.0.0.1").as_deref(), Some("svc"));
    assert_eq!(name("10.0.0.99"), None);
    let attributes = peers.get("10.96.0.7".parse().unwrap()).unwrap().attributes();
    let expected = [("service.peer.name", "svc"), ("service.peer.namespace", "default")];
    assert_eq!(attributes, expected.map(|(key, value)| (key.into(), Value::from(value))));
}

#[test]
fn a_diff_does_what_has_changed_and_no_more() {
    let all = |list: &[Pod]| {
        desire(&Config::default(), &cluster(list.iter().cloned(), []), &Setting::default()).pods
    };
    let (a, b, c) = (
        pod("default", "a", &[], &[("", 80)]),
        pod("default", "b", &[], &[("", 80)]),
        pod("default", "c", &[], &[("", 80)]),
    );
    let b_changed = pod("default", "b", &[], &[("http", 80)]);
    let before = all(&[a.clone(), b, c.clone()]);
    let d = pod("default", "d", &[], &[("", 80)]);
    let after = all(&[d.clone(), b_changed, c]);
    assert_eq!(diff(&after, &after), []);
    let plan = |uid: &str| Arc::clone(&after[uid]);
    assert_eq!(
        diff(&before, &after),
        [Action::Detach(a.uid), Action::Update(plan("uid-default-b")), Action::Attach(plan(&d.uid))]
    );
}
