//! `differences.md`: what peers say otherwise, and why.
//!
//! A difference is a heading `## CAPTURE: PEER`, the reason as text, and a list of the lines that only one of them has:
//! `- Clovisor: LINE`, `- PEER: LINE`.

pub(super) const FILE: &str = include_str!("differences.md");

/// Lines that only one of two has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) clovisor: Vec<String>,
    pub(super) peer: Vec<String>,
}

struct Known {
    capture: String,
    has_reason: bool,
    found: Found,
    used: bool,
}

/// The known differences from one peer.
pub(super) struct Differences {
    peer: &'static str,
    known: Vec<Known>,
}

impl Differences {
    /// Those of a peer.
    pub(super) fn read(peer: &str) -> Self {
        let mut known = Vec::new();
        let mut is_ours = false;
        let peer: &'static str =
            ["tshark", "Suricata"].into_iter().find(|name| *name == peer).expect("a peer");
        for line in FILE.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                let (capture, of) = heading.split_once(": ").expect("a capture and a peer");
                is_ours = of == peer;
                if is_ours {
                    let (capture, found) = (capture.to_owned(), Found::default());
                    known.push(Known { capture, has_reason: false, found, used: false });
                }
                continue;
            }
            let Some(last) = known.last_mut().filter(|_| is_ours) else { continue };
            if let Some(line) = line.strip_prefix("- Clovisor: ") {
                last.found.clovisor.push(line.trim_matches('`').to_owned());
            } else if let Some(line) = line.strip_prefix("- ") {
                let (of, line) = line.split_once(": ").expect("whose line it is");
                assert_eq!(of, peer, "{line}");
                last.found.peer.push(line.trim_matches('`').to_owned());
            } else {
                last.has_reason |= !line.trim().is_empty();
            }
        }
        Self { peer, known }
    }

    /// What is wrong with what was found for a capture; empty if nothing is.
    pub(super) fn check(&mut self, capture: &str, found: &Found) -> String {
        let peer = self.peer;
        let nothing = Found::default();
        let known = self.known.iter_mut().find(|known| known.capture == capture);
        let expected = known.map_or(&nothing, |known| {
            assert!(known.has_reason, "{capture}: {peer}: no reason");
            known.used = true;
            &known.found
        });
        if expected == found {
            return String::new();
        }
        let ours: String = found.clovisor.iter().map(|line| format!("- Clovisor: `{line}`\n")).collect();
        let theirs: String = found.peer.iter().map(|line| format!("- {peer}: `{line}`\n")).collect();
        format!("differences.md does not say just this:\n## {capture}: {peer}\n{ours}{theirs}\n")
    }

    /// What is about captures that are not there.
    pub(super) fn unused(&self) -> String {
        let unused = self.known.iter().filter(|known| !known.used);
        unused.map(|known| format!("no capture {}\n", known.capture)).collect()
    }
}
