//! `clovisor run`: the agent of a Kubernetes node.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    agent::{self, Settings},
    cli::RunArgs,
    config::redis,
    export::{Address, Environment},
    failure::Usage,
};

/// Where traces go if neither Redis nor a variable says so: the collector of the quickstart.
const DEFAULT_TRACES: &str = "jaeger-collector.clovisor:4317";

/// Traces the pods of this node until a signal ends it.
///
/// # Errors
/// It cannot start.
pub async fn run(arguments: RunArgs, verbose: bool) -> Result<ExitCode> {
    let environment = Environment::from_process().map_err(|error| Usage(error.to_string()))?;
    let traces = match arguments.to.or_else(|| environment.endpoint.clone()) {
        Some(address) => address,
        None => DEFAULT_TRACES.parse::<Address>().map_err(|error| Usage(error.to_string()))?,
    };
    let settings = Settings {
        node: arguments.node,
        redis: redis::Settings {
            url: arguments.redis,
            user: arguments.redis_user,
            password: arguments.redis_password,
            ca: arguments.redis_ca,
        },
        traces,
        listen: arguments.listen,
        semconv: arguments.semconv,
        headers: arguments.headers,
        way: arguments.attach.into(),
        buffers: arguments.buffers.into(),
        unneeded: arguments.buffers.unneeded(),
        shedding: arguments.overload.setting(arguments.buffers.unneeded()),
        memory: arguments.memory.bound(),
        cluster_name: arguments.cluster.filter(|name| !name.is_empty()),
        netns: arguments.netns_dir,
        cni_cache: arguments.cni_cache,
    };
    agent::run(settings, environment, verbose).await?;
    Ok(ExitCode::SUCCESS)
}
