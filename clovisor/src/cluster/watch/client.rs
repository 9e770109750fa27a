//! The connection to the Kubernetes API: found from the environment, with TLS by rustls and ring.
//!
//! It refuses to guess: with neither a kubeconfig nor a service account it says what to do. It asks the server nothing,
//! so that an agent starts while the API server is away.

use std::time::Duration;

use kube::{Client, Config};

use super::link::chain;
use crate::threads::others;

/// A server that does not answer a SYN is not there; the watch tries again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a connection is taken for dead: longer than a watch lasts (120 s, and 5 s that are waited more).
const READ_TIMEOUT: Duration = Duration::from_secs(150);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nothing says where the API server is, or what says so cannot be read.
    #[error(
        "the Kubernetes API server is not known ({reason}): run as a pod with a service account, or name a readable \
         kubeconfig in KUBECONFIG"
    )]
    Unknown {
        /// What was looked for, and what was wrong with it.
        reason: String,
    },
    /// The certificates, keys or tokens cannot be used.
    #[error(
        "no connection to the Kubernetes API server at {server} can be made ({reason}): look at the certificates and \
         tokens of the service account or of KUBECONFIG"
    )]
    Unusable {
        /// The server's URL.
        server: String,
        /// What is wrong.
        reason: String,
    },
}

/// A client as the environment has it: `KUBECONFIG` or `~/.kube/config`, else the service account of the pod.
///
/// # Errors
/// If there is neither, or what there is cannot be used. That the server does not answer is no error here.
pub async fn client() -> Result<Client, ClusterError> {
    let config = Config::infer().await.map_err(|error| ClusterError::Unknown { reason: chain(&error) })?;
    connect(config)
}

/// A client by `config`, with our own patience.
pub(super) fn connect(mut config: Config) -> Result<Client, ClusterError> {
    // kube takes the process' default; an error says that there is one already, which will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // kube would try for minutes before it says so; the watch has a back-off, and must know.
    config.default_retry = false;
    let server = config.cluster_url.to_string();
    let others = others();
    // A client has a task of its own.
    let _there = others.enter();
    Client::try_from(config).map_err(|error| ClusterError::Unusable { server, reason: chain(&error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bad_certificate_names_the_server() {
        let mut config = Config::new("https://10.96.0.1:443".parse().unwrap());
        config.root_cert = Some(vec![b"nonsense".to_vec()]);
        let Err(error) = connect(config) else { panic!("taken") };
        assert!(error.to_string().contains("https://10.96.0.1"), "{error}");
    }

    #[tokio::test]
    async fn tls_finds_its_cryptography_and_the_server_need_not_be_there() {
        let mut config = Config::new("https://127.0.0.1:1".parse().unwrap());
        config.root_cert = Some(vec![]);
        for _ in 0..2 {
            assert!(connect(config.clone()).is_ok());
        }
    }
}
