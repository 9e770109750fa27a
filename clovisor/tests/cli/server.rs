//! nginx in a pod: one worker, keep-alive without end, and answers that tell which request they answer.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::netns::{Net, POD_V4};

/// Its port.
pub(crate) const PORT: u16 = 8080;

/// A running nginx; dropping it ends it.
pub(crate) struct Nginx {
    child: Child,
    folder: PathBuf,
}

impl Nginx {
    /// Starts it in the pod and waits until it answers.
    pub(crate) fn start(net: &Net, unique: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("clovisor-cli-{}-{unique}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.display();
        let config = format!(
            "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log; user root;
            events {{ worker_connections 1024; }}
            http {{
              access_log off; keepalive_requests 1000000; client_body_temp_path {path};
              server {{
                listen {PORT}; listen [::]:{PORT};
                location / {{ add_header X-Answers $http_x_request_id always; return 200 'hello'; }}
                location /missing {{ return 404; }}
                location /broken {{ return 503; }}
                location /empty {{ return 204; }}
              }}
            }}"
        );
        std::fs::write(folder.join("nginx.conf"), config).unwrap();
        let conf = folder.join("nginx.conf");
        let child = net
            .pod_thread(move || {
                Command::new("nginx").arg("-c").arg(conf).stderr(Stdio::null()).spawn().unwrap()
            })
            .join()
            .unwrap();
        let nginx = Self { child, folder };
        let address = SocketAddr::new(POD_V4.parse().unwrap(), PORT);
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "nginx does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its worker on SIGTERM, not when it is killed.
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap_or(i32::MAX));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
