//! The images that scenarios run, made of this machine's programs: no registry is asked. Pods use them with
//! `imagePullPolicy: Never`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::{File, Image};
use crate::libraries::{self, ARCHITECTURE};
use crate::needs::go;
use crate::process;

/// nginx, curl and a shell. By itself it sleeps: a pod says what it runs.
const WEB: &str = "clovisor.test/web:1";
/// redis-server and redis-cli; runs the server. It has the name of the image in the shipped manifests, so that these are
/// applied as they are.
const REDIS: &str = "docker.io/library/redis:7.4-alpine";
/// Jaeger all-in-one, named likewise.
const JAEGER: &str = "docker.io/jaegertracing/all-in-one:1.62.0";

/// A server with an answer for each class of status, over connections that it keeps open.
const NGINX: &str = include_str!("manifests/nginx.conf");

/// The name of that file in the folder where the images are written.
pub(super) const NGINX_CONF: &str = "nginx.conf";

/// Writes all images into `dir`, and returns the tars.
pub(super) fn write(dir: &Path) -> Result<Vec<PathBuf>> {
    let plain = |path: &str, name: &str, text: &str| -> Result<File> {
        let source = dir.join(name);
        fs::write(&source, text).with_context(|| format!("cannot write {}", source.display()))?;
        Ok(File { path: path.to_owned(), source, mode: 0o644 })
    };
    let mut web = programs(&["nginx", "curl", "busybox"])?;
    web.push(plain("/etc/nginx.conf", NGINX_CONF, NGINX)?);
    // nginx looks up the user that it is to run as.
    web.push(plain("/etc/passwd", "passwd", "root:x:0:0::/:/bin/sh\n")?);
    web.push(plain("/etc/group", "group", "root:x:0:\n")?);
    // An image's folders are those of its files.
    web.push(plain("/tmp/.keep", "empty", "")?);
    let redis = programs(&["redis-server", "redis-cli", "busybox"])?;
    let jaeger = libraries::with_program("/bin/jaeger", &go::jaeger())?;
    let redis_server = ["/bin/redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""];
    [
        (WEB, web, &["/bin/sleep", "2147483647"][..]),
        (REDIS, redis, &redis_server[..]),
        (JAEGER, jaeger, &["/bin/jaeger"][..]),
    ]
    .into_iter()
    .map(|(reference, files, entrypoint)| {
        let entrypoint = entrypoint.iter().map(|&word| word.to_owned()).collect();
        let env = vec!["PATH=/bin".to_owned()];
        let image = Image { reference: reference.to_owned(), entrypoint, env, files, ..Image::default() };
        let tar = dir.join(format!("{}.tar", reference.replace(['/', ':'], "-")));
        image.write_docker_archive(&tar, ARCHITECTURE)?;
        Ok(tar)
    })
    .collect()
}

/// Programs in `/bin`, each once with its libraries; busybox also as `sh` and `sleep`.
fn programs(names: &[&str]) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for name in names {
        let source = process::find(name).with_context(|| format!("`{name}` is gone"))?;
        files.extend(libraries::with_program(&format!("/bin/{name}"), &source)?);
        if *name == "busybox" {
            for applet in ["sh", "sleep"] {
                files.push(File { path: format!("/bin/{applet}"), source: source.clone(), mode: 0o755 });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}
