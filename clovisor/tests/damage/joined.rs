//! Two tracers that do not know each other, at the pods of both ends of connections whose addresses and ports the kernel
//! changes on the way: each request is one trace, CLIENT over SERVER.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    clients::Asking,
    law::{Faults, Told, hold, request_id},
    netns::{self, try_run},
    nodes::{Addresses, Nodes, PORT, V4, V6},
    path::{Done, Harm},
    pipelining,
    program::{Ended, Session},
    record::Record,
    servers::{self, Make},
    stacks::{Folder, HARM, assert_harmed, judge, rounds},
};

const TOOLS: [&str; 6] = ["nginx", "iptables", "python3", "node", "go", "curl"];
/// OTLP's numbers of the two kinds.
const SERVER_KIND: u64 = 2;
const CLIENT_KIND: u64 = 3;

/// What the client's node does to the addresses, as kube-proxy does by iptables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nat {
    /// The service's address becomes the pod's.
    Destination,
    /// So does it, and the client's address and port become the node's, with another port.
    Both,
}

/// Makes the client's node do it, for a service whose only pod has this address.
fn nat(nodes: &Nodes, how: Nat, service: &str, pod: &str) {
    let (program, to) = if pod.contains(':') {
        ("ip6tables", format!("[{pod}]:{PORT}"))
    } else {
        ("iptables", format!("{pod}:{PORT}"))
    };
    let table = [program, "-w", "-t", "nat", "-A"];
    let rule =
        ["PREROUTING", "-d", service, "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to-destination", &to];
    Nodes::run(&nodes.client_node, &[&table[..], &rule].concat());
    if how == Nat::Both {
        let rule = ["POSTROUTING", "-d", pod, "-p", "tcp", "-j", "MASQUERADE", "--random-fully"];
        Nodes::run(&nodes.client_node, &[&table[..], &rule].concat());
    }
    nodes.assert_route(service);
}

fn asking(nodes: &Nodes, service: &str, folder: &Folder) -> Asking {
    Asking {
        namespace: nodes.client.clone(),
        host: service.to_owned(),
        port: 80,
        folder: folder.0.clone(),
        round: String::new(),
    }
}

fn text<'a>(session: &'a Session, field: &str) -> &'a str {
    session.0[field].as_str().unwrap_or_default()
}

/// The law: each trace is one request, with a CLIENT span that has no parent and a SERVER span below it. Returns the ids of
/// the requests, and what breaks the law.
fn traces<'a>(sessions: impl Iterator<Item = &'a Session>) -> (HashSet<String>, Faults) {
    let mut traces: HashMap<&str, Vec<&Session>> = HashMap::new();
    for session in sessions {
        traces.entry(text(session, "traceId")).or_default().push(session);
    }
    let (mut ids, mut faults) = (HashSet::new(), Faults::new());
    for spans in traces.values() {
        let of_kind = |kind| spans.iter().find(|span| span.0["kind"] == kind);
        let whole = match (of_kind(CLIENT_KIND), of_kind(SERVER_KIND)) {
            (Some(client), Some(server)) => {
                spans.len() == 2
                    && request_id(client) == request_id(server)
                    && text(client, "parentSpanId").is_empty()
                    && text(server, "parentSpanId") == text(client, "spanId")
            }
            _ => false,
        };
        let id = request_id(spans[0]);
        if whole {
            ids.insert(id);
        } else {
            let shown: Vec<_> = spans.iter().map(|span| span.0.to_string()).collect();
            faults.push((id, format!("not CLIENT over SERVER of one request: {}", shown.join("\n    "))));
        }
    }
    (ids, faults)
}

/// What both tracers and the clients say when clients have asked the service through the node's NAT.
struct Through {
    at_client: Ended,
    at_server: Ended,
    told: Told,
    done: [Done; 2],
    record: Record,
}

fn through(
    name: &str,
    how: Nat,
    by: Addresses,
    (harm, seed): (Harm, u64),
    clients: &[fn(&Asking) -> Told],
) -> Through {
    let folder = Folder::new(name);
    let (nodes, path) = Nodes::new(1500, harm, seed);
    nat(&nodes, how, by.service, by.server);
    let _server = servers::start(Make::Nginx, &nodes.server, &folder.0);
    let at_client = Nodes::trace(&nodes.client_node, &["--egress", "80"]);
    let at_server = Nodes::trace(&nodes.server_node, &["--port", "8080", "--join"]);
    let asking = asking(&nodes, by.service, &folder);
    let mut told = Told::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = clients.iter().map(|client| scope.spawn(|| client(&asking))).collect();
        running.into_iter().for_each(|client| told.add(client.join().unwrap()));
    });
    std::thread::sleep(Duration::from_millis(300));
    let (at_client, at_server) = (at_client.end(), at_server.end());
    let (done, record) = path.end();
    assert_changed(how, by, &at_client, &at_server);
    Through { at_client, at_server, told, done, record }
}

/// Each request that any of the clients made is one trace of two spans.
fn all_joined(name: &str, how: Nat, by: Addresses, harm: Harm, clients: &[fn(&Asking) -> Told]) {
    if !netns::has_needs(name, &TOOLS) {
        return;
    }
    // Without harm all rounds are alike.
    let rounds = if harm.drop > 0 { rounds() } else { 1 };
    for seed in 0..rounds {
        round(name, how, by, (harm, seed), clients);
    }
}

fn round(name: &str, how: Nat, by: Addresses, harm: (Harm, u64), clients: &[fn(&Asking) -> Told]) {
    let Through { at_client, at_server, told, done, record } = through(name, how, by, harm, clients);
    let (ids, mut faults) = traces(at_client.sessions.iter().chain(&at_server.sessions));
    faults.extend(hold("at the client", &at_client, &told).1);
    faults.extend(hold("at the server", &at_server, &told).1);
    println!("{name}: {} requests, {} traces of two spans", told.sent.len(), ids.len());
    judge(name, &faults, &record);
    assert_eq!(ids, told.sent, "some requests have no trace");
    if harm.0.drop > 0 {
        assert_harmed(name, done);
    }
}

/// The two tracers really saw other addresses, and with SNAT other ports.
fn assert_changed(how: Nat, by: Addresses, at_client: &Ended, at_server: &Ended) {
    let ends = |ended: &Ended, end: &str| -> HashSet<String> {
        ended.sessions.iter().map(|session| session.attribute(end)).collect()
    };
    let seen = if how == Nat::Both { by.client_node } else { by.client };
    for (ended, end, address) in [
        (at_client, "server.address", by.service),
        (at_server, "server.address", by.server),
        (at_client, "client.address", by.client),
        (at_server, "client.address", seen),
    ] {
        assert_eq!(ends(ended, end), [address.to_owned()].into());
    }
    // How many they are may differ: a port that has become free may be taken again.
    let [ports, others] = [at_client, at_server].map(|ended| ends(ended, "client.port"));
    assert_eq!(ports == others, how == Nat::Destination, "ports: {ports:?} and {others:?}");
}

const WAITING: [fn(&Asking) -> Told; 4] = [Asking::python, Asking::node, Asking::go, Asking::curl];

fn pipelined(asking: &Asking) -> Told {
    pipelining::ask(asking, 1)
}

#[test]
fn through_dnat() {
    let clients = [&WAITING[..], &[pipelined]].concat();
    all_joined("through_dnat", Nat::Destination, V4, Harm::default(), &clients);
}

#[test]
fn through_dnat_and_snat() {
    let clients = [&WAITING[..], &[pipelined]].concat();
    all_joined("through_dnat_and_snat", Nat::Both, V4, Harm::default(), &clients);
}

#[test]
fn through_dnat_and_snat_of_ipv6() {
    let clients = [&WAITING[..], &[pipelined]].concat();
    all_joined("through_dnat_and_snat_of_ipv6", Nat::Both, V6, Harm::default(), &clients);
}

/// Clients that wait for each response before they ask again.
#[test]
fn through_dnat_and_snat_and_damage() {
    all_joined("through_dnat_and_snat_and_damage", Nat::Both, V4, HARM, &WAITING);
}

/// What a client that pipelines has acknowledged may have moved on when a lost request is repeated, so its two spans may be
/// in two traces, as `docs/sequence-joined-traces.md` says; but never in one trace with those of another request.
#[test]
fn pipelined_through_dnat_and_snat_and_damage() {
    let name = "pipelined_through_dnat_and_snat_and_damage";
    if !netns::has_needs(name, &TOOLS) {
        return;
    }
    for seed in 0..rounds() {
        pipelined_round(name, seed);
    }
}

fn pipelined_round(name: &str, seed: u64) {
    let Through { at_client, at_server, told, done, record } =
        through(name, Nat::Both, V4, (HARM, seed), &[pipelined]);
    let (ids, apart) = traces(at_client.sessions.iter().chain(&at_server.sessions));
    println!("{name}: {} requests, {} traces of two spans; {done:?}", told.sent.len(), ids.len());
    let (mut faults, mut spans) = (Faults::new(), HashSet::new());
    let mut requests: HashMap<&str, String> = HashMap::new();
    for session in at_client.sessions.iter().chain(&at_server.sessions) {
        let id = request_id(session);
        let trace = text(session, "traceId");
        let other = requests.entry(trace).or_insert_with(|| id.clone());
        if *other != id || !spans.insert((trace, session.0["kind"].to_string())) {
            faults.push((id, format!("in one trace with {other}: {}", session.0)));
        }
    }
    faults.extend(hold("at the client", &at_client, &told).1);
    faults.extend(hold("at the server", &at_server, &told).1);
    judge(name, &faults, &record);
    // All but those that were hurt: a lost packet of 40 begins a few of 178 requests.
    assert!(ids.len() * 2 > told.sent.len(), "{} of {} are apart", apart.len(), told.sent.len());
}

#[test]
fn a_pod_that_asks_itself_through_its_service() {
    let name = "a_pod_that_asks_itself_through_its_service";
    if !netns::has_needs(name, &TOOLS) {
        return;
    }
    let folder = Folder::new(name);
    let (nodes, path) = Nodes::new(1500, Harm::default(), 1);
    nat(&nodes, Nat::Both, V4.service, V4.client);
    let _server = servers::start(Make::Nginx, &nodes.client, &folder.0);
    // One tracer at one interface sees both sides of each request.
    let tracer = Nodes::trace(&nodes.client_node, &["--egress", "80", "--port", "8080"]);
    let asking = asking(&nodes, V4.service, &folder);
    let mut told = asking.python();
    told.add(pipelined(&asking));
    let ended = tracer.end();
    ended.assert_balanced();
    let (ids, faults) = traces(ended.sessions.iter());
    judge(name, &faults, &path.end().1);
    assert_eq!(ids, told.sent);
    assert_eq!(ended.sessions.len(), 2 * told.sent.len());
}

#[test]
fn a_trace_header_wins() {
    let name = "a_trace_header_wins";
    if !netns::has_needs(name, &TOOLS) {
        return;
    }
    let folder = Folder::new(name);
    let (nodes, _path) = Nodes::new(1500, Harm::default(), 1);
    nat(&nodes, Nat::Both, V4.service, V4.server);
    let _server = servers::start(Make::Nginx, &nodes.server, &folder.0);
    let at_client = Nodes::trace(&nodes.client_node, &["--egress", "80"]);
    let at_server = Nodes::trace(&nodes.server_node, &["--port", "8080", "--join"]);
    let trace = |request: u32| format!("0af7651916cd43dd8448eb211c80{request:04x}");
    let caller = "b7ad6b7169203331";
    for request in 0..20 {
        let header = format!("traceparent: 00-{}-{caller}-01", trace(request));
        let url = format!("http://{}/small/headed-{request}", V4.service);
        Nodes::run(&nodes.client, &["curl", "-sS", "--max-time", "10", "-H", &header, &url]);
    }
    let (at_client, at_server) = (at_client.end(), at_server.end());
    for request in 0..20 {
        let of = |ended: &Ended| -> (String, String, String) {
            let mut found = ended.sessions.iter().filter(|s| request_id(s) == format!("headed-{request}"));
            let session = found.next().unwrap();
            assert!(found.next().is_none());
            let [trace, span, parent] =
                ["traceId", "spanId", "parentSpanId"].map(|field| text(session, field).to_owned());
            (trace, span, parent)
        };
        let (client, server) = (of(&at_client), of(&at_server));
        for (of_trace, _, parent) in [&client, &server] {
            assert_eq!((of_trace.as_str(), parent.as_str()), (trace(request).as_str(), caller));
        }
        assert_ne!(client.1, server.1, "two spans, siblings under the caller's");
    }
}

#[test]
fn tracers_that_come_in_the_middle_of_a_connection() {
    let name = "tracers_that_come_in_the_middle_of_a_connection";
    if !netns::has_needs(name, &TOOLS) {
        return;
    }
    let folder = Folder::new(name);
    let (nodes, path) = Nodes::new(1500, Harm::default(), 1);
    nat(&nodes, Nat::Both, V4.service, V4.server);
    let _server = servers::start(Make::Nginx, &nodes.server, &folder.0);
    // Goes on, on one connection, with 120 more once both tracers are there, and says which was the first of these.
    let (go, first) = (folder.0.join("go"), folder.0.join("first"));
    let asks = format!(
        "import http.client as h, os, time\n\
         c = h.HTTPConnection('{}', 80, timeout=10); c.connect(); s = c.sock\n\
         i, end = 0, 10000\n\
         while i < end:\n \
          if end == 10000 and os.path.exists('{}'): end = i + 120; open('{}', 'w').write(str(i))\n \
          c.request('GET', '/small/middle-%d' % i); c.getresponse().read(); time.sleep(0.005); i += 1\n\
         assert c.sock is s",
        V4.service,
        go.display(),
        first.display()
    );
    let client = nodes.client.clone();
    let asking = std::thread::spawn(move || {
        let output = try_run("ip", &["netns", "exec", &client, "timeout", "90", "python3", "-c", &asks]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    std::thread::sleep(Duration::from_millis(300));
    let at_client = Nodes::trace(&nodes.client_node, &["--egress", "80"]);
    std::thread::sleep(Duration::from_millis(300));
    let at_server = Nodes::trace(&nodes.server_node, &["--port", "8080", "--join"]);
    std::fs::write(&go, "").unwrap();
    asking.join().unwrap();
    let (at_client, at_server) = (at_client.end(), at_server.end());
    let of = |ended: &Ended| -> HashSet<String> {
        let is_complete = |session: &&Session| session.attribute("clovisor.outcome") == "complete";
        ended.sessions.iter().filter(is_complete).map(request_id).collect()
    };
    let both: HashSet<_> = of(&at_client).intersection(&of(&at_server)).cloned().collect();
    let first: u32 = std::fs::read_to_string(first).unwrap().parse().unwrap();
    assert!(first > 0, "the tracers were there from the start");
    for request in first..first + 120 {
        assert!(both.contains(&format!("middle-{request}")), "request {request} was not seen on both sides");
    }
    let sessions = at_client.sessions.iter().chain(&at_server.sessions);
    let (ids, faults) = traces(sessions.filter(|session| both.contains(&request_id(session))));
    println!("{name}: {} seen on both sides, {} traces of two spans", both.len(), ids.len());
    judge(name, &faults, &path.end().1);
    assert_eq!(ids, both);
}
