//! Live tracing: both sides, both IP versions, both ways to attach, and leaving nothing behind.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    netns::{self, Net, POD_V4, POD_V6},
    program::{Program, clovisor},
    server::{Nginx, PORT},
};

const TOOLS: [&str; 3] = ["nginx", "curl", "python3"];

fn url(address: &str, path: &str) -> String {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    format!("http://{host}:{PORT}{path}")
}

fn curl(net: &Net, arguments: &[&str]) {
    net.in_host(
        &[&["curl", "-sS", "-o", "/dev/null", "--max-time", "5", "--interface", "veth0"], arguments].concat(),
    );
}

#[test]
fn requests_of_curl_over_both_ip_versions_by_both_ways() {
    for way in ["auto", "clsact", "tcx"] {
        netns::test("requests_of_curl_over_both_ip_versions_by_both_ways", &TOOLS, move |net| async move {
            let before = net.tc_state();
            let _nginx = Nginx::start(&net, way);
            let program = Program::trace(&["-i", "veth0=shop", "--port", "8080=http", "--attach", way]);
            for address in [POD_V4, POD_V6] {
                curl(
                    &net,
                    &[&url(address, "/a?b=c"), "--next", "-o", "/dev/null", &url(address, "/missing")],
                );
                curl(&net, &["-X", "DELETE", &url(address, "/empty")]);
                curl(&net, &["-I", &url(address, "/broken")]);
            }
            let ended = program.end();
            ended.assert_balanced();
            let lines: Vec<_> = ended.sessions.iter().map(super::program::Session::line).collect();
            let once = [
                "GET /a 200 complete",
                "GET /missing 404 complete",
                "DELETE /empty 204 complete",
                "HEAD /broken 503 complete",
            ];
            assert_eq!(lines, [once, once].concat());
            for session in &ended.sessions {
                assert_eq!(session.0["kind"], 2);
                assert_eq!(session.0["resource"]["service.name"], "shop");
                assert_eq!(session.attribute("server.port"), "8080");
            }
            assert_eq!(ended.sessions[0].attribute("server.address"), POD_V4);
            assert_eq!(ended.sessions[4].attribute("server.address"), POD_V6);
            assert_eq!(net.tc_state(), before, "something was left behind");
        });
    }
}

#[test]
fn without_packets_it_sleeps_and_the_first_one_wakes_it() {
    netns::test("without_packets_it_sleeps_and_the_first_one_wakes_it", &TOOLS, |net| async move {
        let _nginx = Nginx::start(&net, "rest");
        let program = Program::trace(&["-i", "veth0=shop", "--port", "8080=http"]);
        for path in ["/first", "/second"] {
            std::thread::sleep(Duration::from_millis(500));
            let before = program.sleeps();
            std::thread::sleep(Duration::from_secs(2));
            let sleeps = program.sleeps() - before;
            assert!(sleeps < 2_000 / 5, "{sleeps} times in 2 s, as if packets came all the time");
            curl(&net, &[&url(POD_V4, path)]);
        }
        let ended = program.end();
        ended.assert_balanced();
        assert_eq!(ended.sessions.len(), 2);
    });
}

#[test]
fn a_pod_that_asks_is_the_client() {
    netns::test("a_pod_that_asks_is_the_client", &TOOLS, |net| async move {
        let served = "import http.server as h, sys\n\
            class A(h.BaseHTTPRequestHandler):\n \
             protocol_version = 'HTTP/1.1'\n \
             def do_POST(self):\n  \
              self.rfile.read(int(self.headers['content-length'])); body = b'ok'\n  \
              self.send_response(201); self.send_header('content-length', '2'); self.end_headers()\n  \
              self.wfile.write(body)\n \
             def log_message(self, *a): pass\n\
            h.ThreadingHTTPServer(('10.77.0.1', 9000), A).serve_forever()";
        let mut server = std::process::Command::new("python3").args(["-c", served]).spawn().unwrap();
        let asked = "import http.client as h, time\n\
            for i in range(100):\n \
             try: c = h.HTTPConnection('10.77.0.1', 9000, timeout=5); c.connect(); break\n \
             except OSError: time.sleep(0.05)\n\
            for i in range(3):\n \
             c.request('POST', '/order/%d' % i, body=b'x' * 3000); assert c.getresponse().read() == b'ok'";
        for rule in ["9000", "10.77.0.1:9000=http"] {
            let program = Program::trace(&["-i", "veth0", "--egress", rule]);
            net.in_pod(&["python3", "-c", asked]);
            let ended = program.end();
            ended.assert_balanced();
            let lines: Vec<_> = ended.sessions.iter().map(super::program::Session::line).collect();
            let expected = [0, 1, 2].map(|i| format!("POST http://10.77.0.1:9000/order/{i} 201 complete"));
            assert_eq!(lines, expected, "{rule}");
            assert!(ended.sessions.iter().all(|session| session.0["kind"] == 3));
        }
        server.kill().unwrap();
        server.wait().unwrap();
    });
}

#[test]
fn loopback_and_the_exit_code_of_the_command() {
    netns::test("loopback_and_the_exit_code_of_the_command", &TOOLS, |net| async move {
        let _nginx = Nginx::start(&net, "lo");
        let command = format!("curl -sS --max-time 5 http://127.0.0.1:{PORT}/x >/dev/null; exit 7");
        let output = net
            .pod_thread(move || {
                clovisor()
                    .args(["trace", "-i", "lo", "--port", "8080", "-o", "json", "--", "sh", "-c", &command])
                    .output()
                    .unwrap()
            })
            .join()
            .unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        assert!(stdout.contains("\"url.path\":\"/x\""), "{stdout}");
    });
}

#[test]
fn killed_then_started_again() {
    netns::test("killed_then_started_again", &TOOLS, |net| async move {
        let before = net.tc_state();
        let program = Program::trace(&["-i", "veth0", "--port", "8080"]);
        program.signal(Signal::SIGKILL);
        program.wait();
        assert_ne!(net.tc_state(), before, "a killed program leaves its filters; has that changed?");
        // The next start sweeps, and works.
        let _nginx = Nginx::start(&net, "again");
        let program = Program::trace(&["-i", "veth0", "--port", "8080"]);
        curl(&net, &[&url(POD_V4, "/again")]);
        let ended = program.end();
        assert_eq!(ended.sessions.len(), 1);
        assert_eq!(net.tc_state(), before);
        // So does the command for it.
        let program = Program::trace(&["-i", "veth0", "--port", "8080"]);
        program.signal(Signal::SIGKILL);
        program.wait();
        let cleanup = clovisor().arg("cleanup").output().unwrap();
        assert!(cleanup.status.success());
        assert_eq!(net.tc_state(), before);
    });
}

#[test]
fn a_connection_without_a_parser_is_one_session() {
    netns::test("a_connection_without_a_parser_is_one_session", &TOOLS, |net| async move {
        let _nginx = Nginx::start(&net, "tcp");
        let program = Program::trace(&["-i", "veth0", "--port", "8080=tcp"]);
        curl(&net, &[&url(POD_V4, "/"), &url(POD_V4, "/")]);
        let ended = program.end();
        ended.assert_balanced();
        assert_eq!(ended.sessions.len(), 1);
        assert_eq!(ended.sessions[0].attribute("clovisor.outcome"), "complete");
        assert_eq!(ended.sessions[0].0["name"], "TCP");
    });
}

#[test]
fn a_tracer_that_comes_late_and_stops_at_its_limit() {
    netns::test("a_tracer_that_comes_late_and_stops_at_its_limit", &TOOLS, |net| async move {
        let _nginx = Nginx::start(&net, "late");
        let asked = format!(
            "import http.client as h, time\n\
            c = h.HTTPConnection('{POD_V4}', {PORT}, timeout=5)\n\
            for i in range(120):\n \
             c.request('GET', '/%d' % i); c.getresponse().read(); time.sleep(0.05)"
        );
        let asking = std::process::Command::new("python3").args(["-c", &asked]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let program = Program::trace(&["-i", "veth0", "--port", "8080", "--limit", "5"]);
        let ended = program.wait();
        assert!(ended.status.success());
        assert_eq!(ended.sessions.len(), 5);
        // The classifiers may have come between the first request and its response.
        let may_be_half = ended.sessions[0].attribute("clovisor.outcome") == "request_unobserved";
        for session in ended.sessions.iter().skip(usize::from(may_be_half)) {
            assert_eq!(session.attribute("clovisor.outcome"), "complete", "{}", session.0);
        }
        let mut asking = asking;
        assert!(asking.wait().unwrap().success(), "tracing broke the traffic");
    });
}
