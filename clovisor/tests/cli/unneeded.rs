//! Bodies are not copied, their packets mostly only counted, and what is said of them is the same.

use std::{
    net::TcpStream,
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    netns::{self, Net, POD_V4},
    program::{Ended, Program},
};

/// Answers with a body of 16 MB, of a length that is said, in chunks, or up to the end, and takes one of 8 MB. Between the beginnings and
/// the rests it waits, so that the agent has heard of them.
const SERVER: &str = r#"
import http.server as h, time
part, rest = b'x' * 100000, b'GET / HTTP/1.1\r\n\r\n' * 52000 + b'y' * 960000
class A(h.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        self.send_response(201); self.send_header('content-length', '2'); self.end_headers()
        self.wfile.write(b'ok')
    def do_GET(self):
        self.send_response(200)
        if self.path == '/length':
            self.send_header('content-length', str(len(part) + 8 * len(rest)))
        elif self.path == '/chunked':
            self.send_header('transfer-encoding', 'chunked')
        else:
            self.send_header('connection', 'close'); self.close_connection = True
        self.end_headers()
        if self.path == '/chunked':
            self.wfile.write(b'%x\r\n' % (len(part) + 8 * len(rest)))
        self.wfile.write(part); self.wfile.flush(); time.sleep(0.5)
        for i in range(8): self.wfile.write(rest)
        if self.path == '/chunked':
            self.wfile.write(b'\r\n0\r\n\r\n')
    def log_message(self, *a): pass
h.ThreadingHTTPServer(('10.77.0.2', 8080), A).serve_forever()
"#;

/// Each kind of body, on one connection as long as it lasts, and a small request between them.
const CLIENT: &str = r#"
import http.client as h, time
c = h.HTTPConnection('10.77.0.2', 8080, timeout=20)
for path in ['/length', '/chunked']:
    c.request('GET', path); c.getresponse().read()
    c.request('POST', '/small', body=b'x'); c.getresponse().read()
def body():
    yield b'x' * 100000
    time.sleep(0.5)
    for i in range(8): yield b'GET / HTTP/1.1\r\n\r\n' * 50000
c.request('POST', '/large', body=body(), headers={'content-length': str(100000 + 8 * 50000 * 18)}); c.getresponse().read()
c.request('GET', '/close'); c.getresponse().read()
"#;

const TOOLS: [&str; 1] = ["python3"];

/// The server, running; dropping it ends it.
struct Server(Child);

impl Server {
    fn start(net: &Net) -> Self {
        let start = || Command::new("python3").args(["-c", SERVER]).spawn().unwrap();
        let server = Self(net.pod_thread(start).join().unwrap());
        let started = Instant::now();
        while TcpStream::connect((POD_V4, 8080)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "the server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn run(net: &Net, port: &str, options: &[&str]) -> Ended {
    let server = Server::start(net);
    let program = Program::trace(&[&["-i", "veth0", "--port", port], options].concat());
    net.in_host(&["python3", "-c", CLIENT]);
    drop(server);
    let ended = program.end();
    ended.assert_balanced();
    ended
}

/// What a session says, but for times and names of its own.
fn lasting(ended: &Ended) -> Vec<Value> {
    let keep = |name: &str| {
        !["clovisor.", "network.peer.port", "client.port"].iter().any(|own| name.starts_with(own))
    };
    let more = ["clovisor.outcome", "clovisor.pairing", "clovisor.missing_bytes"];
    let attributes = |all: &Value| -> Value {
        let all = all.as_object().unwrap().iter();
        all.filter(|(name, _)| keep(name) || more.contains(&name.as_str()))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect()
    };
    ended.sessions.iter().map(|session| attributes(&session.0["attributes"])).collect()
}

/// Bytes on the wire, and those of them that were copied.
fn bytes(ended: &Ended) -> (u64, u64) {
    let line = ended.stderr.lines().find_map(|line| line.trim().strip_prefix("bytes")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [wire, copied] = numbers[..] else { panic!("{line}") };
    (wire, copied)
}

#[test]
fn bodies_are_not_copied_and_spans_are_the_same() {
    for transport in ["ring", "perf"] {
        netns::test("bodies_are_not_copied_and_spans_are_the_same", &TOOLS, move |net| async move {
            for (port, count) in [("8080=http", 6), ("8080=tcp", 1)] {
                let with = run(&net, port, &["--transport", transport, "--copy-all", "--buffer", "64"]);
                let without = run(&net, port, &["--transport", transport, "--buffer", "64"]);
                let ((wire, copied), all) = (bytes(&without), bytes(&with));
                assert_eq!(all.0, all.1);
                assert!(wire > 53_000_000, "{wire}");
                assert!(copied < wire / 4, "{port} {copied} of {wire}");
                assert!(without.stderr.contains("only counted"), "{}", without.stderr);
                assert!(!with.stderr.contains("only counted"), "{}", with.stderr);
                assert_eq!(lasting(&without), lasting(&with));
                assert_eq!(without.sessions.len(), count, "{}", without.stderr);
            }
        });
    }
}
