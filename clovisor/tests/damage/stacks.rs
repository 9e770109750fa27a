//! Servers of four makes and clients of seven through the damaging path, traced at the pods of both ends at once: the tracer
//! at the client's end sees other packets than the one at the server's.

use std::{collections::HashSet, path::Path, time::Duration};

use crate::{
    clients::Asking,
    law::{Faults, Told, hold},
    netns,
    nodes::{Nodes, PORT, V4, V6},
    path::{Done, Harm},
    pipelining,
    program::{Ended, Session, clovisor},
    record::Record,
    servers::{self, Make},
};

const TOOLS: [&str; 7] = ["nginx", "node", "python3", "go", "curl", "wrk", "h2load"];
/// Some of everything: one packet of 40 is lost, one is doubled, one of 20 is held back.
pub(crate) const HARM: Harm = Harm { drop: 25, double: 25, delay: 50 };
/// What the rounds take in turn: some of everything, many losses, much disorder.
const HARMS: [Harm; 3] =
    [HARM, Harm { drop: 60, double: 30, delay: 50 }, Harm { drop: 30, double: 100, delay: 300 }];
/// Requests that the clients make that do not go by the clock.
const LEAST: usize = 800;
/// Failures told in full; the number of all is told, too.
const SHOWN: usize = 8;

/// A folder for files, removed when dropped.
pub(crate) struct Folder(pub(crate) std::path::PathBuf);

impl Folder {
    pub(crate) fn new(unique: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clovisor-damage-{}-{unique}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Fails if anything broke the law, and leaves captures of the connections in which it did.
pub(crate) fn judge(name: &str, faults: &Faults, record: &Record) {
    if faults.is_empty() {
        return;
    }
    let ids: Vec<_> = faults.iter().map(|(id, _)| id.clone()).filter(|id| !id.is_empty()).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("damage-{name}-{}", std::process::id()));
    let files = record.write(&ids, &folder);
    let shown: Vec<_> = faults.iter().take(SHOWN).map(|(_, what)| what.as_str()).collect();
    panic!("{name}: {} faults; packets in {files:?}\n  {}", faults.len(), shown.join("\n  "));
}

/// Harm was really done, in both directions.
pub(crate) fn assert_harmed(name: &str, done: [Done; 2]) {
    println!("{name}: toward the server {:?}, toward the client {:?}", done[0], done[1]);
    for done in done {
        assert!(done.came > 1000, "{done:?}");
        for harm in [done.dropped, done.doubled, done.overtaken] {
            assert!(harm * 100 >= done.came, "less than one of a hundred packets was harmed: {done:?}");
        }
    }
}

/// Runs `clovisor read` on a capture to its end.
fn read(arguments: &[&str]) -> Ended {
    let output = clovisor().args(["read", "-o", "json"]).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        status: output.status,
        sessions: text(output.stdout)
            .lines()
            .map(|line| Session(serde_json::from_str(line).unwrap()))
            .collect(),
        stderr: text(output.stderr),
    }
}

/// The packets at both ends of the path read as capture files: others than at the pods, where the kernel cuts them later.
fn of_captures(record: &Record, folder: &Path, told: &Told) -> Faults {
    let mut faults = Faults::new();
    for (file, rule) in record.write(&[], folder).into_iter().zip(["--egress", "--port"]) {
        let file = file.display().to_string();
        let port = PORT.to_string();
        let ended = read(&[&file, rule, &port, "--header", "x-answers"]);
        faults.extend(hold(&file, &ended, told).1);
    }
    faults
}

/// The conversations were of all the kinds that they are meant to be.
fn assert_varied(make: Make, ended: &Ended) {
    let values = |name: &str| -> HashSet<String> {
        ended.sessions.iter().map(|session| session.attribute(name)).collect()
    };
    let mut expected = vec![
        ("http.response.status_code", vec!["200", "204", "304", "413"]),
        ("http.request.method", vec!["GET", "HEAD", "POST"]),
        ("network.protocol.version", vec!["1.0", "1.1"]),
        ("clovisor.pairing", vec!["acked", "ordered"]),
    ];
    if make != Make::Nginx {
        expected.push(("clovisor.outcome", vec!["complete", "reset"]));
    }
    for (name, wanted) in expected {
        let seen = values(name);
        assert!(wanted.iter().all(|value| seen.contains(*value)), "{name}: only {seen:?}");
    }
}

/// All clients at once: what they said.
fn ask(asking: &Asking, seed: u64) -> Told {
    let clients: [fn(&Asking) -> Told; 6] =
        [Asking::python, Asking::node, Asking::go, Asking::curl, Asking::wrk, Asking::h2load];
    let mut told = Told::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || client(asking))).collect();
        told.add(pipelining::ask(asking, seed));
        for client in running {
            told.add(client.join().unwrap());
        }
    });
    told
}

fn round(make: Make, host: &str, mtu: u32, harm: Harm, seed: u64) {
    let name = format!("{make:?}-{mtu}-{seed}").to_lowercase();
    let folder = Folder::new(&name);
    let (nodes, path) = Nodes::new(mtu, harm, seed);
    let _server = servers::start(make, &nodes.server, &folder.0);
    nodes.assert_route(host);
    let port = PORT.to_string();
    let at_client = Nodes::trace(&nodes.client_node, &["--egress", &port]);
    let at_server = Nodes::trace(&nodes.server_node, &["--port", &port]);
    let asking = Asking {
        namespace: nodes.client.clone(),
        host: host.to_owned(),
        port: PORT,
        folder: folder.0.clone(),
        round: format!("{seed}-"),
    };
    let told = ask(&asking, seed);
    // What was held back or repeated is in by then.
    std::thread::sleep(Duration::from_millis(300));
    let (at_client, at_server) = (at_client.end(), at_server.end());
    let (done, record) = path.end();
    let (pairs_at_client, mut faults) = hold("at the client", &at_client, &told);
    let (pairs_at_server, more) = hold("at the server", &at_server, &told);
    faults.extend(more);
    faults.extend(of_captures(&record, &folder.0, &told));
    assert_varied(make, &at_server);
    println!(
        "{name}: {} answered; pairs: {pairs_at_client} at the client, {pairs_at_server} at the server",
        told.answered.len()
    );
    judge(&name, &faults, &record);
    assert_harmed(&name, done);
    assert!(told.answered.len() >= LEAST, "{} requests were answered", told.answered.len());
}

/// How often everything is done, each time with other dice.
pub(crate) fn rounds() -> u64 {
    std::env::var("CLOVISOR_DAMAGE").map_or(1, |text| text.parse().expect("a number of rounds"))
}

/// The rounds of a server: one, or as many as were asked for, each with other dice and another MTU.
fn test(name: &str, make: Make) {
    if !netns::has_needs(name, &TOOLS) {
        return;
    }
    for seed in 0..rounds() {
        let mtu = [1500, 576, 9000][(make as usize + usize::try_from(seed).unwrap()) % 3];
        // Go's by IPv6, where the interface may have it.
        let host = if make == Make::Go && mtu >= 1280 { V6 } else { V4 }.server;
        round(make, host, mtu, HARMS[usize::try_from(seed / 3).unwrap() % HARMS.len()], seed);
    }
}

#[test]
fn nginx_through_damage() {
    test("nginx_through_damage", Make::Nginx);
}

#[test]
fn node_through_damage() {
    test("node_through_damage", Make::Node);
}

#[test]
fn python_through_damage() {
    test("python_through_damage", Make::Python);
}

#[test]
fn go_through_damage() {
    test("go_through_damage", Make::Go);
}
