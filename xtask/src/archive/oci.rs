//! An image for several architectures as one archive: an OCI image layout in a tar, as `skopeo` and
//! `ctr images import` read it.
//!
//! `index.json` names one image, which is an index itself: a manifest for each architecture. Everything but
//! `index.json` and `oci-layout` lies under its digest. Layers are not compressed; who pushes them may do so. Source:
//! the OCI image specification v1.0.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Blob, Image, add, create};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Writes images, each with its architecture, as one under `reference`; what the images call themselves does not count.
pub(crate) fn write_oci_archive(out: &Path, reference: &str, images: &[(&str, &Image)]) -> Result<()> {
    let mut blobs = BTreeMap::new();
    // Keeps a blob, and says how others refer to it.
    let mut keep = |kind: &str, blob: Blob| {
        let descriptor = json!({
            "mediaType": kind, "digest": format!("sha256:{}", blob.digest), "size": blob.data.len(),
        });
        blobs.insert(blob.digest, blob.data);
        descriptor
    };
    let mut manifests = Vec::new();
    for (architecture, image) in images {
        let layer = image.layer()?;
        let config = keep(CONFIG, image.config(&layer, architecture));
        let layer = keep(LAYER, layer);
        let manifest = Blob::json(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        }));
        let mut manifest = keep(MANIFEST, manifest);
        manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
        manifests.push(manifest);
    }
    let mut index = keep(INDEX, Blob::json(&index_of(&manifests)));
    index["annotations"] = json!({
        "org.opencontainers.image.ref.name": reference,
        // containerd takes this name as it stands, and Kubernetes asks it for the full one.
        "io.containerd.image.name": full_name(reference),
    });
    let mut archive = create(out)?;
    add(&mut archive, "oci-layout", 0o644, json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes())?;
    add(&mut archive, "index.json", 0o644, index_of(&[index]).to_string().as_bytes())?;
    for (digest, data) in blobs {
        add(&mut archive, &format!("blobs/sha256/{digest}"), 0o644, &data)?;
    }
    archive.into_inner().with_context(|| format!("cannot write {}", out.display()))?;
    Ok(())
}

fn index_of(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

/// A name with its registry: without one it is Docker's, by old custom.
fn full_name(reference: &str) -> String {
    match reference.split_once('/') {
        None => format!("docker.io/library/{reference}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => reference.to_owned(),
        Some(_) => format!("docker.io/{reference}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::File;
    use super::super::read::entries;
    use super::*;
    use crate::temp::Scratch;

    /// The blob that a descriptor names, after a look at its digest and size.
    fn follow<'a>(blobs: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value, kind: &str) -> &'a [u8] {
        assert_eq!(descriptor["mediaType"], kind);
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let data = &blobs[&format!("blobs/sha256/{digest}")];
        assert_eq!(Blob::new(data.clone()).digest, digest);
        assert_eq!(descriptor["size"], data.len());
        data
    }

    fn json_of(data: &[u8]) -> Value {
        serde_json::from_slice(data).unwrap()
    }

    #[test]
    fn every_platform_is_found_from_the_index_by_digests_and_sizes() {
        let temp = Scratch::new("oci").unwrap();
        let image = |architecture: &str| {
            let source = temp.path().join(architecture);
            fs::write(&source, architecture).unwrap();
            let file = File { path: "/program".to_owned(), source, mode: 0o755 };
            Image { entrypoint: vec!["/program".to_owned()], files: vec![file], ..Image::default() }
        };
        let (amd64, arm64) = (image("amd64"), image("arm64"));
        let out = temp.path().join("oci.tar");
        let write = || {
            write_oci_archive(&out, "it:1", &[("amd64", &amd64), ("arm64", &arm64)]).map(|()| fs::read(&out))
        };
        let first = write().unwrap().unwrap();

        let found = entries(&first).unwrap();
        assert_eq!(json_of(&found["oci-layout"])["imageLayoutVersion"], "1.0.0");
        let outer = json_of(&found["index.json"]);
        assert_eq!(outer["manifests"].as_array().unwrap().len(), 1, "one image");
        let named = &outer["manifests"][0];
        assert_eq!(named["annotations"]["org.opencontainers.image.ref.name"], "it:1");
        let index = json_of(follow(&found, named, INDEX));
        let manifests = index["manifests"].as_array().unwrap();
        // The two files with names, the index, and three blobs for each platform.
        assert_eq!(found.len(), 3 + 3 * 2, "nothing lies there that is not referred to");
        assert_eq!(manifests.len(), 2);
        for (entry, architecture) in manifests.iter().zip(["amd64", "arm64"]) {
            assert_eq!(entry["platform"], json!({ "architecture": architecture, "os": "linux" }));
            let manifest = json_of(follow(&found, entry, MANIFEST));
            let config = json_of(follow(&found, &manifest["config"], CONFIG));
            let layer = follow(&found, &manifest["layers"][0], LAYER);
            assert_eq!(config["architecture"], architecture);
            assert_eq!(config["rootfs"]["diff_ids"], json!([manifest["layers"][0]["digest"]]));
            assert_eq!(entries(layer).unwrap()["program"], architecture.as_bytes());
        }
        assert_eq!(write().unwrap().unwrap(), first, "the same input gives the same bytes");
    }

    #[test]
    fn names_without_a_registry_are_dockers() {
        for (short, full) in [
            ("clovisor:1", "docker.io/library/clovisor:1"),
            ("you/clovisor:1", "docker.io/you/clovisor:1"),
            ("registry.example.com/clovisor:1", "registry.example.com/clovisor:1"),
            ("localhost/clovisor:1", "localhost/clovisor:1"),
            ("registry:5000/clovisor", "registry:5000/clovisor"),
        ] {
            assert_eq!(full_name(short), full);
        }
    }
}
