//! Reads a docker-archive into what a container would see of it, so that two images can be compared.
//!
//! What differs between two makings of one image is left out: times, history, how layers are cut. It refuses images
//! that hide files of a lower layer, as none of ours does.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Blob;

/// An image as a container sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// What is set of the configuration, as in `Entrypoint` or `Labels.NAME`.
    settings: BTreeMap<String, Value>,
    /// Every entry of the root by its path.
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: tar::EntryType,
    /// Permissions, as in 0o755.
    mode: u32,
    /// User and group.
    owner: (u64, u64),
    /// Bytes, and their SHA-256.
    size: usize,
    digest: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, mode, owner: (user, group), size, digest } = self;
        write!(f, "{kind:?} {mode:o} {user}:{group}, {size} bytes, sha256 {digest}")
    }
}

impl Contents {
    /// Reads a docker-archive of one image.
    pub(crate) fn of_docker_archive(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let archive = entries(&fs::read(path)?)?;
            let blob =
                |name: &Value| name.as_str().and_then(|name| archive.get(name)).context("a part is missing");
            let manifest: Value =
                serde_json::from_slice(archive.get("manifest.json").context("no manifest")?)?;
            let config = serde_json::from_slice(blob(&manifest[0]["Config"])?)?;
            let mut files = BTreeMap::new();
            for layer in manifest[0]["Layers"].as_array().context("no layers")? {
                add_layer(&mut files, blob(layer)?)?;
            }
            Ok(Self { settings: settings(&config), files })
        };
        read().with_context(|| format!("cannot read {} as an image", path.display()))
    }

    /// What differs, a line for each difference.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = differences(&self.settings, &other.settings);
        found.extend(differences(&self.files, &other.files));
        found
    }
}

fn differences<T: fmt::Display + PartialEq>(
    ours: &BTreeMap<String, T>,
    theirs: &BTreeMap<String, T>,
) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let show = |value: Option<&T>| value.map_or("nothing".to_owned(), ToString::to_string);
    names
        .into_iter()
        .map(|name| (name, ours.get(name), theirs.get(name)))
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(name, ours, theirs)| format!("{name}: {} and {}", show(ours), show(theirs)))
        .collect()
}

/// What is set, one level deep, with labels each for itself. `PATH` does not count: builders set it by themselves.
fn settings(config: &Value) -> BTreeMap<String, Value> {
    let mut settings = BTreeMap::new();
    let mut set = |name: String, value: &Value| {
        let value = match value {
            Value::Array(words) if name == "Env" => {
                words.iter().filter(|word| !word.to_string().starts_with("\"PATH=")).cloned().collect()
            }
            other => other.clone(),
        };
        let empty = value.is_null()
            || value == ""
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty);
        if !empty {
            settings.insert(name, value);
        }
    };
    set("architecture".to_owned(), &config["architecture"]);
    set("os".to_owned(), &config["os"]);
    for (name, value) in config["config"].as_object().into_iter().flatten() {
        if name == "Labels" {
            for (label, value) in value.as_object().into_iter().flatten() {
                set(format!("label {label}"), value);
            }
        } else {
            set(name.clone(), value);
        }
    }
    settings
}

fn add_layer(files: &mut BTreeMap<String, Entry>, layer: &[u8]) -> Result<()> {
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        ensure!(!path.split('/').any(|part| part.starts_with(".wh.")), "{path} hides a file");
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        let header = entry.header();
        let entry = Entry {
            kind: header.entry_type(),
            // Some write the kind of file here as well.
            mode: header.mode()? & 0o7777,
            owner: (header.uid()?, header.gid()?),
            size: data.len(),
            digest: Blob::new(data).digest,
        };
        files.insert(format!("/{}", path.trim_matches('/')), entry);
    }
    Ok(())
}

/// The contents of a tar by path.
pub(super) fn entries(data: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = tar::Archive::new(data);
    let mut found = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        found.insert(path, data);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::{File, Image};
    use super::*;
    use crate::temp::Scratch;

    #[test]
    fn a_difference_is_named_and_its_absence_is_none() {
        let temp = Scratch::new("read").unwrap();
        let source = temp.path().join("program");
        fs::write(&source, "one").unwrap();
        let label = |name: &str| (name.to_owned(), "value".to_owned());
        let image = Image {
            reference: "it:1".to_owned(),
            entrypoint: vec!["/program".to_owned()],
            labels: vec![label("same"), label("ours")],
            files: vec![File { path: "/program".to_owned(), source: source.clone(), mode: 0o755 }],
            ..Image::default()
        };
        let read = |image: &Image| {
            let tar = temp.path().join("image.tar");
            image.write_docker_archive(&tar, "arm64").unwrap();
            Contents::of_docker_archive(&tar).unwrap()
        };
        let ours = read(&image);
        let mut other = image.clone();
        other.env = vec!["PATH=/bin".to_owned()];
        assert_eq!(ours.differences(&read(&other)), Vec::<String>::new());

        other.env.push("A=B".to_owned());
        other.entrypoint = vec!["/elsewhere".to_owned()];
        other.labels = vec![label("same"), label("theirs")];
        other.files[0].mode = 0o700;
        let names = |lines: Vec<String>| -> Vec<String> {
            lines.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect()
        };
        let differences = names(ours.differences(&read(&other)));
        assert_eq!(differences, ["Entrypoint", "Env", "label ours", "label theirs", "/program"]);

        fs::write(&source, "two").unwrap();
        assert_eq!(names(ours.differences(&read(&image))), ["/program"], "other bytes");
    }
}
