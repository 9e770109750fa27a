//! Other tracers of HTTP that Clovisor is measured beside, each as it is meant to be run: at the same veth, for the same port,
//! its records to a file.
//!
//! A peer's records are counted, and no more is made of them: none brings back the number of a request by itself, so what is
//! paired wrongly there is not known.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{self as std_process, Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::world::{PORT, World};
use crate::needs::{go, suricata};
use crate::process;

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Requests and responses as lines; no reassembly, no pairing.
    Httpry,
    /// An intrusion detection system with a log of transactions.
    Suricata,
    /// Elastic's tracer.
    Packetbeat,
    /// Wireshark's dissectors.
    Tshark,
}

/// All of them.
pub(crate) const ALL: [Peer; 4] = [Peer::Httpry, Peer::Suricata, Peer::Packetbeat, Peer::Tshark];

impl Peer {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Httpry => "httpry",
            Self::Suricata => "Suricata",
            Self::Packetbeat => "Packetbeat",
            Self::Tshark => "tshark",
        }
    }

    /// Where it may write. Suricata sees no more than the system that it is in.
    pub(super) fn dir(self, dir: &Path) -> PathBuf {
        match self {
            Self::Suricata => suricata::root().join(inside()),
            _ => dir.join(self.name()),
        }
    }

    /// What starts it, with that folder.
    pub(super) fn command(self, world: &World, dir: &Path) -> Result<Command> {
        let (node, veth, filter) = (&world.node.namespace, world.veth(), format!("tcp port {PORT}"));
        let mut command;
        match self {
            Self::Httpry => {
                command = node.command("httpry");
                command.args(["-i", veth, "-f", "direction,request-uri", "-o"]);
                command.arg(dir.join("records")).arg(filter);
            }
            Self::Tshark => {
                command = node.command("tshark");
                command.args(["-n", "-i", veth, "-f", &filter, "-d", &format!("tcp.port=={PORT},http")]);
                command.args(["-Y", "http.request", "-T", "fields", "-e", "http.request.uri"]);
                // It writes all packets to a file beside, which must go with the rest.
                command.env("TMPDIR", dir);
            }
            Self::Packetbeat => {
                let conf = dir.join("packetbeat.yml");
                fs::write(&conf, packetbeat_conf(veth, dir)).context("cannot configure Packetbeat")?;
                command = node.command(&go::packetbeat().to_string_lossy());
                command.args(["-e", "-c"]).arg(conf);
            }
            Self::Suricata => {
                let place = Path::new("/").join(inside());
                fs::write(dir.join("suricata.yaml"), suricata_conf(veth))
                    .context("cannot configure Suricata")?;
                command = node.command("chroot");
                command.arg(suricata::root()).arg("suricata").env("LC_ALL", "C.UTF-8");
                command.arg("-c").arg(place.join("suricata.yaml")).arg(format!("--af-packet={veth}"));
                // No rules; checksums are left to cards that these packets never see.
                command.args(["-k", "none", "-S", "/dev/null", "-l"]).arg(place);
            }
        }
        Ok(command)
    }

    /// Whether it says that it captures.
    pub(super) fn is_ready(self, dir: &Path) -> bool {
        let words = match self {
            Self::Httpry => "Writing output to file",
            Self::Suricata => "Engine started",
            Self::Packetbeat => "packetbeat start running",
            Self::Tshark => "Capture started",
        };
        ["out", "said"].iter().any(|name| {
            fs::read(dir.join(name)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(words))
        })
    }

    /// Requests that it has recorded.
    pub(super) fn count(self, dir: &Path) -> Result<u64> {
        let lines = |path: &Path, is_one: &dyn Fn(&str) -> bool| -> Result<u64> {
            let mut count = 0;
            for line in BufReader::new(File::open(path)?).split(b'\n') {
                count += u64::from(is_one(&String::from_utf8_lossy(&line?)));
            }
            Ok(count)
        };
        match self {
            Self::Httpry => lines(&dir.join("records"), &|line| line.starts_with('>')),
            Self::Tshark => lines(&dir.join("out"), &|line| line.starts_with('/')),
            Self::Suricata => lines(&dir.join("eve.json"), &|line| line.contains(r#""event_type":"http""#)),
            Self::Packetbeat => {
                let files = fs::read_dir(dir.join("records")).into_iter().flatten().flatten();
                files.map(|file| lines(&file.path(), &|line| line.contains(r#""type":"http""#))).sum()
            }
        }
    }

    fn version(self) -> String {
        let mut command = match self {
            Self::Httpry | Self::Tshark => {
                let package = self.name();
                let mut command = Command::new("dpkg-query");
                command.args(["--show", "--showformat", "${Version}", package]);
                command
            }
            Self::Suricata => {
                let mut command = Command::new("chroot");
                command.arg(suricata::root()).args(["suricata", "-V"]).env("LC_ALL", "C.UTF-8");
                command
            }
            Self::Packetbeat => {
                let mut command = Command::new(go::packetbeat());
                command.arg("version");
                command
            }
        };
        process::output(&mut command).map(|text| text.trim().to_owned()).unwrap_or_default()
    }
}

/// Which versions they are, for the table.
pub(crate) fn versions() -> Value {
    ALL.iter().map(|peer| (peer.name().to_owned(), json!(peer.version()))).collect()
}

/// The folder in Suricata's system.
fn inside() -> PathBuf {
    Path::new("tmp").join(format!("clovisor-bench-{}", std_process::id()))
}

/// Its file rotates at the most that it can be set to, which a run does not reach.
fn packetbeat_conf(veth: &str, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "packetbeat.interfaces: {{device: {veth}, type: af_packet}}\n\
         packetbeat.protocols: [{{type: http, ports: [{PORT}]}}]\n\
         output.file: {{path: {dir}/records, filename: records, rotate_every_kb: 4000000}}\n\
         path: {{data: {dir}/data, logs: {dir}/logs}}\n"
    )
}

/// What its documents recommend for watching, with a log of transactions alone.
fn suricata_conf(veth: &str) -> String {
    format!(
        "%YAML 1.1\n---\n\
         outputs: [{{eve-log: {{enabled: yes, filetype: regular, filename: eve.json, types: [http]}}}}]\n\
         app-layer: {{protocols: {{http: {{enabled: yes}}}}}}\n\
         stats: {{enabled: no}}\n\
         af-packet: [{{interface: {veth}, cluster-id: 99, cluster-type: cluster_flow, defrag: yes, tpacket-v3: yes}}]\n"
    )
}
