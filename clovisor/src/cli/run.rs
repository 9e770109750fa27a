//! The options of `clovisor run`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use clovisor_trace::Semconv;

use super::{AttachWay, BufferArgs, MemoryArgs, OverloadArgs, address, parse};
use crate::export::Address;

/// Trace the pods of this Kubernetes node; the image's default command.
///
/// Which pods, which outbound targets and where traces go is configured live in Redis, with the keys clovisor_labels,
/// clovisor_egress_match and clovisor_jaeger_server; without any, the pods of namespace 'default' are traced. Redis
/// may come later, and may go. Needs the capabilities NET_ADMIN, BPF and PERFMON; with SYS_ADMIN it also traces pods whose
/// packets do not all pass the host's end of a veth.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Name of this node, as Kubernetes calls it (spec.nodeName)
    #[arg(long, value_name = "NAME", env = "MY_NODE_NAME")]
    pub node: String,
    /// Redis with the configuration: redis://HOST[:PORT][/DB], rediss:// for TLS, unix:///PATH
    #[arg(
        long,
        value_name = "URL",
        default_value = "redis://redis.clover-system:6379",
        env = "CLOVISOR_REDIS"
    )]
    pub redis: String,
    /// User at Redis
    #[arg(long, value_name = "NAME", env = "CLOVISOR_REDIS_USER")]
    pub redis_user: Option<String>,
    /// Password at Redis; set the variable instead, since an option shows in the list of processes
    #[arg(long, value_name = "PASSWORD", env = "CLOVISOR_REDIS_PASSWORD", hide_env_values = true)]
    pub redis_password: Option<String>,
    /// PEM file of the certificate authorities for rediss:// [default: the system's]
    #[arg(long, value_name = "FILE", env = "CLOVISOR_REDIS_CA")]
    pub redis_ca: Option<PathBuf>,
    /// Where spans go as long as Redis does not say [default: OTEL_EXPORTER_OTLP_ENDPOINT, or
    /// jaeger-collector.clovisor:4317]
    #[arg(long, value_name = "ADDRESS", value_parser = address, env = "CLOVISOR_TO")]
    pub to: Option<Address>,
    /// Address for /healthz, /readyz and /metrics
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:9465", env = "CLOVISOR_LISTEN")]
    pub listen: SocketAddr,
    /// Name of the cluster, for k8s.cluster.name
    #[arg(long, value_name = "NAME", env = "CLOVISOR_CLUSTER")]
    pub cluster: Option<String>,
    /// Header whose values requests and responses are to keep; may be given more than once. None are by default
    #[arg(long = "header", value_name = "NAME", value_parser = parse::header, env = "CLOVISOR_HEADER", value_delimiter = ',')]
    pub headers: Vec<String>,
    /// Names of attributes: stable (OpenTelemetry's), legacy (the original Clovisor's), or dup (both)
    #[arg(long, value_name = "NAMES", default_value = "stable", value_parser = str::parse::<Semconv>, env = "CLOVISOR_SEMCONV")]
    pub semconv: Semconv,
    /// How to attach: clsact filters, tcx links, or whichever sees all packets at the least cost
    #[arg(long, value_enum, default_value_t, env = "CLOVISOR_ATTACH")]
    pub attach: AttachWay,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub buffers: BufferArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub memory: MemoryArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub overload: OverloadArgs,
    /// Folder of the pods' network namespaces
    #[arg(long, value_name = "DIR", default_value = "/run/netns", env = "CLOVISOR_NETNS_DIR")]
    pub netns_dir: PathBuf,
    /// Folder of the CNI plugins' results
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni/results", env = "CLOVISOR_CNI_CACHE")]
    pub cni_cache: PathBuf,
}
