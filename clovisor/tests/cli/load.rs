//! Many requests: none lost, none paired wrongly, and the ledger balances.

use std::{collections::HashSet, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
};

use crate::{
    netns::{self, POD_V4},
    program::Program,
    server::{Nginx, PORT},
};

const CONNECTIONS: u32 = 50;
const REQUESTS: u32 = 200;

/// A connection that stays.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects to the pod's server by a device of the test's own: nothing may ever leave by another.
    pub(crate) async fn connect(device: &str, address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind_device(Some(device.as_bytes())).unwrap();
        let address = SocketAddr::new(address.parse().unwrap(), PORT);
        Self(BufReader::new(socket.connect(address).await.unwrap()))
    }

    /// One request with an id of its own, and its response.
    pub(crate) async fn ask(&mut self, id: &str) {
        let head = format!("GET /{id} HTTP/1.1\r\nHost: pod\r\nX-Request-Id: {id}\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line).await.unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        self.0.read_exact(&mut vec![0; length]).await.unwrap();
    }
}

/// Requests one after another over one connection, each with an id of its own.
pub(crate) async fn ask(connection: String, requests: u32) {
    let mut client = Client::connect("veth0", POD_V4).await;
    for request in 0..requests {
        client.ask(&format!("{connection}-{request}")).await;
    }
}

#[test]
fn ten_thousand_requests_over_fifty_connections() {
    for way in ["clsact", "tcx"] {
        netns::test("ten_thousand_requests_over_fifty_connections", &["nginx"], move |net| async move {
            let _nginx = Nginx::start(&net, &format!("load-{way}"));
            // A debug build beside other tests may be kept waiting for longer than the usual buffer lasts.
            let options = ["-i", "veth0", "--port", "8080", "--buffer", "8", "--attach", way];
            let headers = ["--header", "x-request-id", "--header", "x-answers"];
            let program = Program::trace(&[&options[..], &headers].concat());
            let asking: Vec<_> = (0..CONNECTIONS)
                .map(|connection| tokio::spawn(ask(connection.to_string(), REQUESTS)))
                .collect();
            for task in asking {
                task.await.unwrap();
            }
            let ended = program.end();
            ended.assert_balanced();
            assert_eq!(ended.sessions.len(), (CONNECTIONS * REQUESTS) as usize, "{}", ended.stderr);
            let mut ids = HashSet::new();
            for session in &ended.sessions {
                let id = session.attribute("http.request.header.x-request-id");
                assert_eq!(session.attribute("http.response.header.x-answers"), id, "a wrong pair");
                assert_eq!(session.attribute("clovisor.outcome"), "complete");
                ids.insert(id);
            }
            assert_eq!(ids.len(), (CONNECTIONS * REQUESTS) as usize, "a session came twice");
        });
    }
}

/// The number in front of a text; 0 without it.
fn number_before(text: &str, what: &str) -> usize {
    let before = text.split_once(what).map_or("", |(before, _)| before);
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
fn wrk_at_full_speed_is_accounted_for() {
    netns::test("wrk_at_full_speed_is_accounted_for", &["nginx", "wrk"], |net| async move {
        let _nginx = Nginx::start(&net, "wrk");
        let program = Program::trace(&["-i", "veth0", "--port", "8080"]);
        // The route to the pod goes over the test's own veth, or nothing is sent.
        let route = net.in_host(&["ip", "route", "get", POD_V4]);
        assert!(route.contains("dev veth0"), "{route}");
        let url = format!("http://{POD_V4}:{PORT}/");
        let report = net.in_host(&["wrk", "-t", "1", "-c", "20", "-d", "2s", &url]);
        let asked: usize = report
            .lines()
            .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
            .expect("wrk reports requests");
        let ended = program.end();
        assert!(!ended.stderr.contains("IS NOT"), "{}", ended.stderr);
        let complete =
            ended.sessions.iter().filter(|s| s.attribute("clovisor.outcome") == "complete").count();
        // A test's own reader may be too slow for its spans: those have a name in the account, too.
        let no_room = number_before(&ended.stderr, " lost, queue full");
        let lost = ended.stderr.contains("LOST") || ended.stderr.contains("left out");
        assert!(
            complete + no_room >= asked || lost,
            "{complete} of {asked} sessions, and nothing says why: {}",
            ended.stderr
        );
    });
}
