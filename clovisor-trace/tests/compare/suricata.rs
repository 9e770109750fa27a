//! Suricata's opinion of a capture: the HTTP transactions in its own log of events.

use std::{
    collections::BTreeMap,
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{PORTS, Pairs, pair, testdata};

/// A system that has Suricata.
pub(super) struct Suricata {
    root: PathBuf,
}

impl Suricata {
    /// The one at `CLOVISOR_SURICATA`.
    pub(super) fn find() -> Self {
        let root =
            env::var_os("CLOVISOR_SURICATA").expect("CLOVISOR_SURICATA: cargo xtask compare --suricata");
        Self { root: root.into() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg("suricata").env("LC_ALL", "C.UTF-8");
        command
    }

    pub(super) fn version(&self) -> String {
        super::version(self.command().arg("-V")).expect("suricata -V")
    }

    /// The pairs of a capture, in the order of Suricata's own numbers of transactions.
    pub(super) fn pairs(&self, capture: &str) -> Pairs {
        let inside = Path::new("tmp").join(format!("clovisor-{}", std::process::id()));
        let folder = self.root.join(&inside);
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(testdata().join(capture), folder.join("capture")).expect("a copy");
        let place = Path::new("/").join(&inside);
        // No rules; wrong checksums are those of cards that had not yet reckoned them.
        let output = self
            .command()
            .args(["-k", "none", "-S", "/dev/null", "-r"])
            .arg(place.join("capture"))
            .arg("-l")
            .arg(&place)
            .output()
            .expect("chroot");
        assert!(output.status.success(), "{capture}: {}", String::from_utf8_lossy(&output.stderr));
        let events = fs::read_to_string(folder.join("eve.json")).expect("events");
        fs::remove_dir_all(&folder).expect("a folder");
        read(&events)
    }
}

/// The transactions among events, a JSON object a line.
fn read(events: &str) -> Pairs {
    let mut transactions = BTreeMap::new();
    for (place, line) in events.lines().enumerate() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let is_server = |port: u64| PORTS.iter().any(|other| u64::from(*other) == port);
        let port = |key: &str| event[key].as_u64().unwrap_or_default();
        if event["event_type"] != "http" || !is_server(port("dest_port")) {
            continue;
        }
        let client: IpAddr = event["src_ip"].as_str().and_then(|ip| ip.parse().ok()).expect("an address");
        let client = format!("{client}:{}", port("src_port"));
        let http = &event["http"];
        let status = http["status"].as_u64().map(|status| format!("{status:03}"));
        let pair = pair(http["http_method"].as_str(), http["url"].as_str(), status.as_deref());
        transactions.insert((event["flow_id"].as_u64(), event["tx_id"].as_u64(), place), (client, pair));
    }
    let mut pairs = Pairs::new();
    for (client, pair) in transactions.into_values() {
        pairs.entry(client).or_default().push(pair);
    }
    pairs
}
