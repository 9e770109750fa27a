//! Certificates for servers of tests on 127.0.0.1.

use std::{fs, path::Path, process::Command};

fn openssl(dir: &Path, words: &str) {
    let output = Command::new("openssl").current_dir(dir).args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes the folder, with an authority's `ca.pem`, and `cert.pem` and `key.pem` that it vouches for.
pub(crate) fn make(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("req -x509 {curve} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    openssl(dir, &format!("req {curve} -keyout key.pem -out request.pem -subj /CN=server"));
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl(
        dir,
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile names",
    );
}
