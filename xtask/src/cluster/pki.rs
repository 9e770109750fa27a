//! Who is who in the cluster: one certificate authority, a certificate for everyone, and the files by which
//! programs find and prove themselves to the API server. All of it lives as long as the cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::network::{API_SERVICE, NODE};
use crate::process;

/// Without a file of our own, openssl reads the machine's, whatever is in there.
const CONFIG: &str = "[req]\ndistinguished_name = name\n[name]\n";
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// The certificates and keys, in a directory of their own.
pub(super) struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// Makes the authority, and the key pair that signs the tokens of service accounts.
    pub(super) fn new(dir: PathBuf) -> Result<Self> {
        fs::create_dir(&dir)
            .and_then(|()| fs::write(dir.join("openssl.cnf"), CONFIG))
            .with_context(|| format!("cannot write {}", dir.display()))?;
        let this = Self { dir };
        this.request(
            "ca",
            "/CN=clovisor-e2e",
            &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"],
        )?;
        let names = format!(
            "subjectAltName=IP:{NODE},IP:{API_SERVICE},IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
        );
        this.issue("apiserver", "/CN=kube-apiserver", &["extendedKeyUsage=serverAuth", &names])?;
        // Only its key pair is of use: it signs tokens, and shows that they are signed.
        this.issue("tokens", "/CN=tokens", &[])?;
        Ok(this)
    }

    /// A certificate's file.
    pub(super) fn certificate(&self, name: &str) -> String {
        self.dir.join(format!("{name}.crt")).display().to_string()
    }

    /// A key's file.
    pub(super) fn key(&self, name: &str) -> String {
        self.dir.join(format!("{name}.key")).display().to_string()
    }

    /// Makes a client of the API server: `user` by its name and, where one is named, a member of a group.
    pub(super) fn client(&self, name: &str, user: &str, group: Option<&str>) -> Result<()> {
        let group = group.map(|group| format!("/O={group}")).unwrap_or_default();
        self.issue(name, &format!("{group}/CN={user}"), &["extendedKeyUsage=clientAuth"])
    }

    /// Makes a client, and the file by which it finds the API server and proves who it is. Returns the file.
    pub(super) fn kubeconfig(&self, name: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        self.client(name, user, group)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "e2e", "cluster": {
                "server": format!("https://{NODE}:6443"),
                "certificate-authority": self.certificate("ca"),
            }}],
            "users": [{ "name": name, "user": {
                "client-certificate": self.certificate(name),
                "client-key": self.key(name),
            }}],
            "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": name }}],
            "current-context": "e2e",
        });
        let path = self.dir.join(format!("{name}.kubeconfig"));
        fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn issue(&self, name: &str, subject: &str, extensions: &[&str]) -> Result<()> {
        let (ca, key) = (self.certificate("ca"), self.key("ca"));
        let mut extensions = extensions.to_vec();
        extensions.push("basicConstraints=critical,CA:FALSE");
        self.run(name, subject, &extensions, &["-CA", &ca, "-CAkey", &key])
    }

    fn request(&self, name: &str, subject: &str, extensions: &[&str]) -> Result<()> {
        self.run(name, subject, extensions, &[])
    }

    fn run(&self, name: &str, subject: &str, extensions: &[&str], signer: &[&str]) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl
            .args(["req", "-x509", "-days", "30", "-config"])
            .arg(Path::new(&self.dir).join("openssl.cnf"))
            .args(KEY)
            .args(["-subj", subject, "-keyout", &self.key(name), "-out", &self.certificate(name)])
            .args(signer);
        for extension in extensions {
            openssl.args(["-addext", extension]);
        }
        process::output(&mut openssl)
            .with_context(|| format!("cannot make the certificate of {name}"))
            .map(drop)
    }
}
