//! Servers of four makes in the server's pod. All answer the same paths: the first part says in what way, the last is the
//! request's id, which goes back in `X-Answers`.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    netns::{run, thread_in},
    nodes::{PORT, Running},
};

/// Who made the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    Nginx,
    Node,
    Python,
    Go,
}

/// The folder of the programs of the tests' own.
pub(crate) fn ends() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/damage/ends")
}

/// The Go program, compiled once.
pub(crate) fn go() -> &'static Path {
    static GO: OnceLock<PathBuf> = OnceLock::new();
    GO.get_or_init(|| {
        let program =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("damage-ends-{}", std::process::id()));
        // Nothing but its standard library: nothing is fetched.
        let output = Command::new("go")
            .args(["build", "-o"])
            .args([&program, &ends().join("ends.go")])
            .env("GOPROXY", "off")
            .env("GOFLAGS", "")
            .env("GOWORK", "off")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // One name for all runs, so that they do not pile up; one that runs in another process stays what it is.
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("damage-ends");
        fs::rename(&program, &shared).unwrap();
        shared
    })
}

/// Starts a server in a namespace, and waits until it answers there. It may put files into the folder.
pub(crate) fn start(make: Make, namespace: &str, folder: &Path) -> Running {
    let command = match make {
        Make::Nginx => nginx(folder),
        Make::Node => with(Command::new("node"), "server.js"),
        Make::Python => with(Command::new("python3"), "server.py"),
        Make::Go => {
            let mut command = Command::new(go());
            command.arg("serve");
            command
        }
    };
    let running = Running::start(namespace, command);
    let answers = move || {
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "{make:?} does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    thread_in(namespace, answers).join().unwrap();
    running
}

fn with(mut command: Command, script: &str) -> Command {
    command.arg(ends().join(script));
    command
}

fn nginx(folder: &Path) -> Command {
    let path = folder.display();
    let config = format!(
        r#"daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log; user root;
        events {{ worker_connections 1024; }}
        http {{
          access_log off; keepalive_requests 1000000; client_body_temp_path {path}; proxy_temp_path {path};
          map $request_uri $id {{ "~/(?<last>[^/?]+)$" $last; }}
          gzip_types *; gzip_min_length 1; gzip_http_version 1.0;
          server {{
            listen {PORT}; listen [::]:{PORT}; root {path};
            add_header X-Answers $id always;
            location / {{ return 200 'hello'; }}
            location /large/ {{ try_files /large.bin =404; }}
            location /chunked/ {{ gzip on; try_files /chunked.bin =404; }}
            location /none/ {{ return 204; }}
            location /notmod/ {{ return 304; }}
            location /close/ {{ keepalive_timeout 0; try_files /chunked.bin =404; }}
            location /slow/ {{ limit_rate 50k; limit_rate_after 1k; try_files /slow.bin =404; }}
            location /echo/ {{ client_max_body_size 1m; proxy_pass http://127.0.0.1:8081; }}
            location /early/ {{ client_max_body_size 1k; proxy_pass http://127.0.0.1:8081; }}
          }}
          server {{ listen 127.0.0.1:8081; location / {{ return 200 'hello'; }} }}
        }}"#
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    for (name, size) in [("large", 200_000), ("chunked", 20_000), ("slow", 5_000)] {
        // Numbers, so that gzip has something to do.
        let text: String = (0..size / 5).map(|number| format!("{number:05}")).collect();
        fs::write(folder.join(format!("{name}.bin")), text).unwrap();
    }
    // nginx says here what is wrong with its configuration, and not where it runs.
    run("nginx", &["-t", "-q", "-c", &folder.join("nginx.conf").display().to_string()]);
    let mut command = Command::new("nginx");
    command.arg("-c").arg(folder.join("nginx.conf")).stderr(Stdio::null());
    command
}
