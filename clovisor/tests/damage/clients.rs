//! Clients of many makes in the client's pod, each with what it says of its requests.
//!
//! Each ends by itself, and is ended after a minute at the latest.

use std::{fs, path::Path};

use crate::{
    law::{Told, id_of},
    netns::try_run,
    servers::{ends, go},
};

/// What curl says of each request.
const CURL_SAYS: &str = "%{url_effective} %{method} %{http_code} %{size_download} %{exitcode}\\n";

/// Where a client runs and whom it asks.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) namespace: String,
    /// Address of the server, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// For files.
    pub(crate) folder: std::path::PathBuf,
    /// What ids begin with.
    pub(crate) round: String,
}

impl Asking {
    fn base(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("http://[{host}]:{port}") } else { format!("http://{host}:{port}") }
    }

    /// Runs a client to its end: what it wrote.
    fn run(&self, command: &[&str], may_fail: bool) -> String {
        let bounded = ["netns", "exec", &self.namespace, "timeout", "-k", "2", "60"];
        let output = try_run("ip", &[&bounded[..], command].concat());
        let code = output.status.code();
        let timed_out = matches!(code, None | Some(124 | 137));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!timed_out && (may_fail || code == Some(0)), "{command:?} ended with {code:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Python's http.client, three connections.
    pub(crate) fn python(&self) -> Told {
        self.script("python3", "client.py", "py")
    }

    /// Node's http agent, four connections.
    pub(crate) fn node(&self) -> Told {
        self.script("node", "client.js", "js")
    }

    fn script(&self, program: &str, script: &str, name: &str) -> Told {
        let script = ends().join(script).display().to_string();
        let (port, name) = (self.port.to_string(), format!("{}{name}", self.round));
        let mut told = Told::default();
        told.lines(&self.run(&[program, &script, &self.host, &port, &name], false));
        told
    }

    /// Go's http.Client, a dozen connections.
    pub(crate) fn go(&self) -> Told {
        let program = go().display().to_string();
        let mut told = Told::default();
        told.lines(&self.run(&[&program, "ask", &self.base(), &format!("{}go", self.round)], false));
        told
    }

    /// curl, with one connection for the URLs of each call.
    pub(crate) fn curl(&self) -> Told {
        let body = self.folder.join(format!("{}body", self.round));
        fs::write(&body, vec![b'b'; 20_000]).unwrap();
        let upload = self.folder.join(format!("{}upload", self.round));
        fs::write(&upload, vec![b'u'; 1_000_000]).unwrap();
        let [body, upload] = [body, upload].map(|path| format!("@{}", path.display()));
        let calls: [(&[&str], &[&str]); 7] = [
            (
                &["--compressed"],
                &["small", "large", "chunked", "none", "notmod", "slow", "small", "close", "small"],
            ),
            (&["-I"], &["small", "large", "none", "small"]),
            (&["--http1.0", "--compressed"], &["small", "chunked", "large", "none"]),
            (&["-H", "Expect: 100-continue", "--data-binary", &body], &["echo", "echo", "echo"]),
            (&["-H", "Expect: 100-continue", "--data-binary", &upload], &["early"]),
            (&["-H", "Expect:", "--data-binary", &upload], &["early"]),
            (&[], &["reset", "small"]),
        ];
        let mut told = Told::default();
        for (call, (options, kinds)) in calls.iter().enumerate() {
            let urls: Vec<_> = kinds
                .iter()
                .enumerate()
                .map(|(at, kind)| format!("{}/{kind}/{}curl-{call}-{at}", self.base(), self.round))
                .collect();
            let mut command =
                vec!["curl", "-s", "-g", "--interface", "eth0", "--max-time", "50", "-w", CURL_SAYS];
            command.extend(*options);
            command.extend(urls.iter().flat_map(|url| ["-o", "/dev/null", url]));
            for line in self.run(&command, true).lines() {
                let words: Vec<_> = line.split(' ').collect();
                let [url, method, status, bytes, code] = words[..] else { panic!("curl said: {line}") };
                let state = match (status, code) {
                    // An interim response is none.
                    ("000" | "100", _) => "failed",
                    // 413 to a body that cannot be sent any more is an answer, too.
                    ("413", _) | (_, "0") => "whole",
                    _ => "cut",
                };
                told.lines(&format!("/{} {method} {status} {bytes} {state}", id_of(url)));
            }
        }
        told
    }

    /// wrk, eight connections for two seconds; it says each request that it made.
    pub(crate) fn wrk(&self) -> Told {
        let folder = self.folder.join(format!("{}wrk", self.round));
        fs::create_dir_all(&folder).unwrap();
        let script = ends().join("wrk.lua").display().to_string();
        let (url, files) = (self.base() + "/", folder.display().to_string());
        self.run(&["wrk", "-t", "2", "-c", "8", "-d", "2s", "-s", &script, &url, "--", &files], false);
        let read =
            |name: &str| ["0", "1"].map(|n| fs::read_to_string(folder.join(name.to_owned() + n)).unwrap());
        let mut told = Told::default();
        for text in read("asked").iter().chain(&read("answered")) {
            told.lines(text);
        }
        told
    }

    /// h2load with HTTP/1: eight requests at once on one connection, then four connections that ask the same.
    pub(crate) fn h2load(&self) -> Told {
        let mut told = Told::default();
        for (connections, at_once, count) in [(1, 8, 120), (4, 1, 40)] {
            let mut asked = Told::default();
            let kinds = ["small", "none", "small", "chunked", "notmod"];
            let mut urls = String::new();
            for (at, kind) in (0..count).zip(kinds.iter().cycle()) {
                let id = format!("{}h2load-{connections}-{at}", self.round);
                urls += &format!("{}/{kind}/{id}\n", self.base());
                let status = match *kind {
                    "none" => "204",
                    "notmod" => "304",
                    _ => "200",
                };
                asked.lines(&format!("/{id} GET {status} 0 whole"));
            }
            let file = self.folder.join(format!("{}uris-{connections}", self.round));
            fs::write(&file, urls).unwrap();
            let total = connections * count;
            let numbers = [connections, at_once, total].map(|number: usize| number.to_string());
            let file = Path::display(&file).to_string();
            let report = self.run(
                &[
                    "h2load",
                    "--h1",
                    "-t",
                    "1",
                    "-c",
                    &numbers[0],
                    "-m",
                    &numbers[1],
                    "-n",
                    &numbers[2],
                    "-i",
                    &file,
                ],
                false,
            );
            assert!(report.contains(&format!("{total} total, {total} started, {total} done")), "{report}");
            asked.answered.iter_mut().for_each(|answered| answered.times = connections);
            told.add(asked);
        }
        told
    }
}
