//! Captures of live runs: read back they give the same sessions, other programs read them, and no fault of the disk harms
//! tracing.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    netns::{self, Net, POD_V4},
    program::{Program, clovisor},
    server::{Nginx, PORT},
};

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clovisor-capture-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn read(file: &str, options: &[&str]) -> Output {
    clovisor().args(["read", file, "-o", "json"]).args(options).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A session with its times reckoned from its start: the distances between them must be the same.
fn timeless(session: &Value) -> Value {
    let nanoseconds = |value: &Value| value.as_str().and_then(|time| time.parse::<i64>().ok());
    let start = nanoseconds(&session["startTimeUnixNano"]).unwrap();
    let mut session = session.clone();
    let mut waiting = vec![&mut session];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match nanoseconds(field).filter(|_| name.ends_with("UnixNano")) {
                        Some(time) => *field = (time - start).into(),
                        None => waiting.push(field),
                    }
                }
            }
            Value::Array(values) => waiting.extend(values),
            _ => {}
        }
    }
    session
}

/// The lines of a summary that a live run and its capture share, from the tracer on.
fn counts(stderr: &str) -> Vec<String> {
    let of_tracer = |line: &&str| {
        let line = line.trim_start();
        line.contains(" sessions: ") || line.starts_with("sessions ") || line.contains(" of sessions")
    };
    let lines = stderr.lines().filter(of_tracer);
    lines.map(|line| line.replacen("  captured ", "  packets  ", 1)).collect()
}

fn url(path: &str) -> String {
    format!("http://{POD_V4}:{PORT}{path}")
}

fn curl(net: &Net, paths: &[&str]) {
    for path in paths {
        net.in_host(&[
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "--max-time",
            "5",
            "--interface",
            "veth0",
            &url(path),
        ]);
    }
}

/// Requests of all kinds: kept alive, reset, unanswered, met in the middle, many at once, at both sides and interfaces.
fn traffic(net: &Net) {
    let asked = format!(
        "import http.client as h, socket, struct\n\
        c = h.HTTPConnection('{POD_V4}', {PORT}, timeout=5)\n\
        for i in range(30):\n c.request('GET', '/kept/%d' % i); c.getresponse().read()\n\
        for i in range(5):\n \
         s = socket.create_connection(('{POD_V4}', {PORT}), 5)\n \
         s.send(b'GET /reset HTTP/1.1\\r\\nHost: h\\r\\n' + (b'\\r\\n' if i % 2 else b''))\n \
         s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()\n"
    );
    net.in_host(&["python3", "-c", &asked]);
    let from_pod = "import http.client as h\n\
        c = h.HTTPConnection('10.77.0.1', 9000, timeout=5)\n\
        for i in range(20):\n c.request('GET', '/from/pod/%d' % i); c.getresponse().read()";
    net.in_pod(&["python3", "-c", from_pod]);
    net.in_host(&["python3", "-c", &from_pod.replace("10.77.0.1", "127.0.0.1").replace("pod", "host")]);
    curl(net, &["/", "/missing", "/broken", "/empty"]);
    // The route to the pod goes over the test's own veth, or nothing is sent.
    let route = net.in_host(&["ip", "route", "get", POD_V4]);
    assert!(route.contains("dev veth0"), "{route}");
    net.in_host(&["wrk", "-t", "1", "-c", "10", "-d", "1s", &url("/wrk")]);
}

/// A server of the host's, at all of its addresses.
const SERVER: &str = "import http.server as h\n\
    class A(h.BaseHTTPRequestHandler):\n \
     protocol_version = 'HTTP/1.1'\n \
     def do_GET(self):\n  \
      self.send_response(200); self.send_header('content-length', '2'); self.end_headers()\n  \
      self.wfile.write(b'ok')\n \
     def log_message(self, *a): pass\n\
    h.ThreadingHTTPServer(('0.0.0.0', 9000), A).serve_forever()";

#[test]
fn a_capture_read_back_gives_the_same_sessions() {
    let tools = ["nginx", "curl", "python3", "wrk", "tshark", "capinfos"];
    netns::test("a_capture_read_back_gives_the_same_sessions", &tools, |net| async move {
        let folder = Folder::new("same");
        let file = folder.file("out.pcapng");
        let _nginx = Nginx::start(&net, "capture");
        let mut server = Command::new("python3").args(["-c", SERVER]).spawn().unwrap();
        // Asks before it is traced and until it is told to stop.
        let early = format!(
            "import http.client as h, select, sys\n\
            c = h.HTTPConnection('{POD_V4}', {PORT}, timeout=5)\n\
            i = 0\n\
            while not select.select([sys.stdin], [], [], 0.05)[0]:\n \
             c.request('GET', '/early/%d' % i); c.getresponse().read(); i += 1"
        );
        let mut early = Command::new("python3").args(["-c", &early]).stdin(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(400));
        let arguments =
            ["-i", "veth0=my shop", "-i", "lo", "--port", "8080", "--egress", "9000", "-w", &file];
        let program = Program::trace(&arguments);
        traffic(&net);
        drop(early.stdin.take());
        assert!(early.wait().unwrap().success(), "tracing broke the traffic");
        let ended = program.end();
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(!ended.stderr.contains("IS NOT"), "{}", ended.stderr);

        let again = read(&file, &[]);
        let stderr = text(&again.stderr);
        assert!(again.status.success(), "{stderr}");
        let lines: Vec<Value> =
            text(&again.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.len() > 100, "{stderr}");
        assert_eq!(lines.len(), ended.sessions.len(), "{stderr}{}", ended.stderr);
        for (read, live) in lines.iter().zip(&ended.sessions) {
            assert_eq!(timeless(read), timeless(&live.0));
        }
        for seen in ["/early/", "/kept/29", "/reset", "/from/pod/19", "/from/host/19", "/wrk"] {
            assert!(text(&again.stdout).contains(seen), "{seen} was to be in it");
        }
        assert_eq!(counts(&stderr), counts(&ended.stderr), "{stderr}{}", ended.stderr);
        assert_eq!(counts(&stderr).len(), 3, "{stderr}");
        assert_eq!(read(&file, &[]).stdout, again.stdout, "the same file gives the same bytes");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        // What is asked for in words goes before what the file says.
        let other = read(&file, &["--port", "9999"]);
        assert!(other.status.success() && other.stdout.is_empty(), "{}", text(&other.stderr));
        let named = text(&read(&file, &["--service", "named"]).stdout);
        assert!(named.lines().all(|line| line.contains(r#""service.name":"named""#)), "{named}");

        let written: usize = number_after(&ended.stderr, "capture ");
        assert!(ended.stderr.contains(&format!("{written} = {written} written")), "{}", ended.stderr);
        same_to_others(&file, written);
    });
}

/// The first number after a word.
fn number_after(text: &str, word: &str) -> usize {
    let (_, rest) = text.split_once(&format!("  {word}")).unwrap_or_else(|| panic!("no {word} in {text}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// capinfos and tshark see so many packets, at the interfaces by name.
fn same_to_others(file: &str, written: usize) {
    let infos = netns::run("capinfos", &["-M", file]);
    let line = |what: &str| infos.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default().trim();
    assert_eq!(line("Number of packets:"), written.to_string(), "{infos}");
    assert_eq!(line("Number of interfaces in file:"), "2", "{infos}");
    assert!(infos.contains("clovisor port=8080=http egress=9000=http service=my shop"), "{infos}");
    let fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction"];
    let packets = netns::run("tshark", &[&["-r", file][..], &fields].concat());
    assert_eq!(packets.lines().count(), written);
    for interface in ["veth0", "lo"] {
        for way in ["1", "2"] {
            let count =
                packets.lines().filter(|line| **line == format!("{interface}\t0x0000000{way}")).count();
            assert!(count > 0, "{interface} has no packets of direction {way}: {infos}");
        }
    }
}

#[test]
fn a_killed_run_leaves_a_file_that_can_be_read() {
    netns::test("a_killed_run_leaves_a_file_that_can_be_read", &["nginx", "curl"], |net| async move {
        let folder = Folder::new("killed");
        let file = folder.file("out.pcapng");
        let _nginx = Nginx::start(&net, "killed");
        let program = Program::trace(&["-i", "veth0", "--port", "8080", "-w", &file]);
        curl(&net, &["/a", "/b", "/c"]);
        // What is traced is in the file a second later.
        std::thread::sleep(Duration::from_millis(1_500));
        program.signal(Signal::SIGKILL);
        program.wait();
        let all = read(&file, &[]);
        assert!(all.status.success(), "{}", text(&all.stderr));
        assert_eq!(text(&all.stdout).lines().count(), 3, "{}", text(&all.stderr));
        let bytes = fs::read(&file).unwrap();
        let cut = folder.file("cut.pcapng");
        for len in [bytes.len() - 1, bytes.len() / 2 + 1, bytes.len() / 3 + 1] {
            // A block is a multiple of four bytes long.
            fs::write(&cut, &bytes[..len / 4 * 4 + 1]).unwrap();
            let some = read(&cut, &[]);
            let stderr = text(&some.stderr);
            assert!(some.status.success(), "{stderr}");
            assert!(stderr.contains("WARN") && stderr.contains("ends in the middle"), "{stderr}");
        }
        assert!(clovisor().arg("cleanup").status().unwrap().success());
    });
}

/// A file system of 256 KiB, unmounted when the test ends.
struct Small(Folder);

impl Small {
    fn new() -> Self {
        let folder = Folder::new("small");
        let path = folder.0.to_str().unwrap().to_owned();
        netns::run("mount", &["-t", "tmpfs", "-o", "size=256k", "clovisor-test", &path]);
        Self(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        netns::try_run("umount", &[self.0.0.to_str().unwrap()]);
    }
}

#[test]
fn a_full_disk_costs_the_file_and_not_tracing() {
    let tools = ["nginx", "wrk", "curl", "mount", "umount"];
    netns::test("a_full_disk_costs_the_file_and_not_tracing", &tools, |net| async move {
        let small = Small::new();
        let file = small.0.file("out.pcapng");
        let _nginx = Nginx::start(&net, "full");
        let program = Program::trace(&["-i", "veth0", "--port", "8080", "-w", &file]);
        let route = net.in_host(&["ip", "route", "get", POD_V4]);
        assert!(route.contains("dev veth0"), "{route}");
        net.in_host(&["wrk", "-t", "1", "-c", "5", "-d", "1s", &url("/")]);
        std::thread::sleep(Duration::from_millis(1_500));
        curl(&net, &["/after"]);
        std::thread::sleep(Duration::from_millis(200));
        program.signal(Signal::SIGTERM);
        let ended = program.wait();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert_eq!(ended.stderr.matches("ERROR cannot write").count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("not written, writing failed"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("IS NOT"), "{}", ended.stderr);
        let last = ended.sessions.iter().any(|session| session.line() == "GET /after 200 complete");
        assert!(last, "tracing has stopped: {}", ended.stderr);
        let rest = read(&file, &[]);
        assert!(rest.status.success(), "{}", text(&rest.stderr));
        let full = clovisor().args(["trace", "-i", "veth0", "-w", "/dev/full"]).output().unwrap();
        assert_eq!(full.status.code(), Some(1));
        assert!(text(&full.stderr).contains("No space left"), "{}", text(&full.stderr));
    });
}

#[test]
fn a_capture_ends_at_its_limit() {
    netns::test("a_capture_ends_at_its_limit", &["nginx", "curl", "capinfos"], |net| async move {
        let folder = Folder::new("limit");
        let file = folder.file("out.pcapng");
        // What is there is overwritten, and no longer open to all.
        fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
        let _nginx = Nginx::start(&net, "limit");
        let program = Program::trace(&["-i", "veth0", "--port", "8080", "-w", &file, "--write-limit", "64K"]);
        for _ in 0..8 {
            curl(&net, &["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h"]);
        }
        let ended = program.end();
        assert!(ended.stderr.contains("WARN the capture has reached --write-limit"), "{}", ended.stderr);
        assert!(ended.stderr.contains("not written, limit reached"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("IS NOT"), "{}", ended.stderr);
        assert_eq!(ended.sessions.len(), 64, "{}", ended.stderr);
        let metadata = fs::metadata(&file).unwrap();
        assert!((60_000..=65_536).contains(&metadata.len()), "{} bytes", metadata.len());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        netns::run("capinfos", &["-M", &file]);
        let rest = read(&file, &[]);
        assert!(rest.status.success() && !text(&rest.stderr).contains("WARN"), "{}", text(&rest.stderr));
    });
}

#[test]
fn a_capture_on_standard_output() {
    netns::test("a_capture_on_standard_output", &["nginx", "curl"], |net| async move {
        let _nginx = Nginx::start(&net, "stdout");
        let curl = format!("curl -s --max-time 5 --interface veth0 {} >/dev/null", url("/piped"));
        let mut tracing = clovisor()
            .args([
                "trace", "-i", "veth0", "--port", "8080", "-o", "none", "-w", "-", "--", "sh", "-c", &curl,
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let reading = clovisor()
            .args(["read", "-", "-o", "json"])
            .stdin(tracing.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(tracing.wait().unwrap().success());
        assert!(text(&reading.stdout).contains("/piped"), "{}", text(&reading.stderr));
    });
}

#[test]
fn a_file_that_cannot_be_made_is_said_before_anything_is_attached() {
    netns::test("a_file_that_cannot_be_made_is_said_before_anything_is_attached", &[], |net| async move {
        let before = net.tc_state();
        let output =
            clovisor().args(["trace", "-i", "veth0", "-w", "/nonexistent/out.pcapng"]).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        assert!(
            text(&output.stderr).contains("cannot write /nonexistent/out.pcapng"),
            "{}",
            text(&output.stderr)
        );
        assert_eq!(net.tc_state(), before);
        assert!(!Path::new("/nonexistent").exists());
    });
}
