//! Container images as tar files, made without any container engine.
//!
//! [`Image::write_docker_archive`] writes what `docker load` and `ctr images import` read, for one architecture;
//! [`oci`] writes one archive for several; [`read`] reads what an engine wrote, to compare. The same input always
//! gives the same bytes: files in order of path, owned by root, of time zero. Source: the Docker image
//! specification v1.2.

mod oci;
pub(crate) mod read;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) use oci::write_oci_archive;

/// What an image is made of: one layer, and how it is run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// Name and tag, as in `clovisor:0.1.0`.
    pub(crate) reference: String,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) files: Vec<File>,
}

/// A file of an image.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Where it is in the image, absolute.
    pub(crate) path: String,
    /// Where it is here.
    pub(crate) source: PathBuf,
    /// Permissions, as in 0o755.
    pub(crate) mode: u32,
}

/// A piece of an image, by its digest.
#[derive(Clone)]
struct Blob {
    /// Of SHA-256, in hexadecimal.
    digest: String,
    data: Vec<u8>,
}

impl Blob {
    fn new(data: Vec<u8>) -> Self {
        let hash = Sha256::digest(&data);
        let digest = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { digest, data }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }
}

impl Image {
    /// Writes the image as a docker-archive, and returns the size of its files in bytes.
    pub(crate) fn write_docker_archive(&self, out: &Path, architecture: &str) -> Result<u64> {
        let layer = self.layer()?;
        let config = self.config(&layer, architecture);
        let (config_name, layer_name) =
            (format!("{}.json", config.digest), format!("{}/layer.tar", layer.digest));
        let manifest =
            json!([{ "Config": config_name, "RepoTags": [self.reference], "Layers": [layer_name] }]);
        let mut archive = create(out)?;
        add(&mut archive, &config_name, 0o644, &config.data)?;
        add(&mut archive, &layer_name, 0o644, &layer.data)?;
        add(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
        archive.into_inner().with_context(|| format!("cannot write {}", out.display()))?;
        Ok(layer.data.len() as u64)
    }

    /// The only layer: a tar of the files and the folders that they are in.
    fn layer(&self) -> Result<Blob> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut files = self.files.clone();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut folders = BTreeSet::new();
        for file in &files {
            let path = file.path.trim_start_matches('/');
            let parents = Path::new(path).ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
            folders.extend(parents.map(Path::to_path_buf));
        }
        for folder in folders {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            archive.append_data(&mut header, format!("{}/", folder.display()), std::io::empty())?;
        }
        for file in &files {
            let data =
                fs::read(&file.source).with_context(|| format!("cannot read {}", file.source.display()))?;
            add(&mut archive, file.path.trim_start_matches('/'), file.mode, &data)?;
        }
        Ok(Blob::new(archive.into_inner()?))
    }

    fn config(&self, layer: &Blob, architecture: &str) -> Blob {
        let labels: serde_json::Map<_, _> =
            self.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        Blob::json(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint, "Cmd": self.cmd, "Env": self.env, "Labels": labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)] },
        }))
    }
}

fn create(out: &Path) -> Result<tar::Builder<fs::File>> {
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let mut file = fs::File::create(out).with_context(|| format!("cannot write {}", out.display()))?;
    file.rewind()?;
    Ok(tar::Builder::new(file))
}

fn add(archive: &mut tar::Builder<impl Write>, path: &str, mode: u32, data: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, data.len() as u64);
    archive.append_data(&mut header, path, data).with_context(|| format!("cannot add {path}"))
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::read::entries;
    use super::*;
    use crate::temp::Scratch;

    #[test]
    fn what_is_written_can_be_followed_by_its_digests() {
        let temp = Scratch::new("archive").unwrap();
        let source = temp.path().join("program");
        fs::write(&source, b"#!").unwrap();
        let file = File { path: "/usr/bin/program".to_owned(), source, mode: 0o755 };
        let image = Image { reference: "it:1".to_owned(), files: vec![file], ..Image::default() };

        let out = temp.path().join("docker.tar");
        image.write_docker_archive(&out, "amd64").unwrap();
        let first = fs::read(&out).unwrap();
        let found = entries(&first).unwrap();
        let manifest: Value = serde_json::from_slice(&found["manifest.json"]).unwrap();
        let layer = &found[manifest[0]["Layers"][0].as_str().unwrap()];
        let config: Value = serde_json::from_slice(&found[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        let diff_id = format!("sha256:{}", Blob::new(layer.clone()).digest);
        assert_eq!(config["rootfs"]["diff_ids"], json!([diff_id]));
        let layer = entries(layer).unwrap();
        assert_eq!(layer["usr/bin/program"], b"#!");
        assert!(layer.contains_key("usr/bin/"));
        image.write_docker_archive(&out, "amd64").unwrap();
        assert_eq!(fs::read(&out).unwrap(), first);
    }
}
