//! `cargo xtask soak`: whether Clovisor holds out under saturation, in a control group that bounds its memory.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::bench::tracer::Kind;
use crate::bench::world::{Programs, Size, World};
use crate::bench::{live, machine};
use crate::needs::{self, Need};
use crate::soak::group::Group;
use crate::soak::subject::Subject;
use crate::soak::{law, maps, watch};
use crate::stop::Stop;
use crate::temp::Scratch;
use crate::{process, workspace};

/// Let Clovisor trace at saturation for long, with little memory, and see whether it holds out.
///
/// A server and clients in network namespaces, as `cargo xtask bench` has them, and `clovisor trace` in a control group of its own. All
/// through it is watched what it holds. At the end nothing may have been killed, memory must not have grown from the middle third to
/// the last, the ledger must balance, and what it calls exported must have arrived. Prints a table, and writes it as soak/KIND.md
/// and soak/KIND.json in the target directory.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Memory that the control group may hold
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(8..=65536))]
    limit_mib: u64,
    /// Where sessions go
    #[arg(long, value_enum, default_value_t)]
    to: To,
    /// Connections of a client; each minute another client takes over
    #[arg(long, value_name = "N", default_value_t = live::CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    connections: u32,
    /// Further arguments of 'clovisor trace'
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Where sessions go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum To {
    /// JSON lines through a pipe, as those of a container
    #[default]
    Lines,
    /// OTLP over gRPC to a receiver that only counts
    Otlp,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !process::is_root() {
        let why = "makes network namespaces and a control group, and loads programs into the kernel";
        return Err(needs::Unmet::root("soak", why).into());
    }
    needs::ensure(&needs::BUILD)?;
    needs::ensure(&[Need::Ip, Need::Nginx])?;
    eprintln!("building clovisor and the ends of its connections …");
    let programs = Programs {
        clovisor: workspace::build_clovisor()?,
        load: workspace::build_load()?,
        receiver: (arguments.to == To::Otlp).then(workspace::build_receiver).transpose()?,
    };
    let stop = Stop::on_signals()?;
    let scratch = Scratch::new("clovisor-soak")?;
    let group = Group::new(arguments.limit_mib << 20)?;
    let world = World::new(scratch.path(), programs, Size::default())?;
    let (json, verdicts) = soak(arguments, &world, &group, &stop)?;
    let text = markdown(&json);
    let (dir, name) = (workspace::target_dir()?.join("soak"), json["to"].as_str().unwrap_or_default());
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(dir.join(format!("{name}.json")), format!("{json:#}\n")))
        .and_then(|()| fs::write(dir.join(format!("{name}.md")), &text))
        .with_context(|| format!("cannot write to {}", dir.display()))?;
    println!("{text}");
    let broken: Vec<&str> =
        verdicts.iter().filter(|verdict| !verdict.held).map(|verdict| verdict.law).collect();
    ensure!(broken.is_empty(), "it did not hold: {}", broken.join("; "));
    Ok(())
}

/// The run: what was found, and what must hold of it.
fn soak(
    arguments: &Arguments,
    world: &World,
    group: &Group,
    stop: &Stop,
) -> Result<(Value, Vec<law::Verdict>)> {
    let (kind, name) = match arguments.to {
        To::Lines => (Kind::File, "lines"),
        To::Otlp => (Kind::Otlp, "otlp"),
    };
    let mut subject = Subject::start(world, kind, group, &arguments.arguments)?;
    let maps = maps::of(subject.id())?;
    eprintln!("{} minutes of all that {} connections can …", arguments.minutes, arguments.connections);
    let watched =
        watch::watch(world, &mut subject, group, arguments.connections, arguments.minutes * 60, stop)?;
    let (parts, most, kills) = (group.parts()?, group.most()?, group.kills()?);
    let (came, accounts) = subject.finish()?;
    let verdicts = vec![
        law::alive(kills),
        law::flat("resident memory is flat", &watched.resident()),
        law::flat("memory charged to the group is flat", &watched.charged()),
        law::balanced(&accounts),
        law::arrived(law::exported(&accounts), came),
    ];
    let json = json!({
        "machine": machine::describe(),
        "to": name,
        "minutes": arguments.minutes,
        "limit_mib": arguments.limit_mib,
        "connections": arguments.connections,
        "arguments": arguments.arguments,
        "clients": watched.rounds,
        "answered": watched.answered,
        "came": came,
        "resident_kb": spread(&watched.resident()),
        "charged_kb": spread(&watched.charged()),
        "charged_most_kb": most >> 10,
        "charged_parts": parts,
        "maps": maps,
        "accounts": accounts,
        "laws": verdicts.iter().map(law::Verdict::json).collect::<Vec<_>>(),
        "samples": watched.json(),
    });
    Ok((json, verdicts))
}

/// The first, the most and the last.
fn spread(values: &[u64]) -> Value {
    json!({ "first": values.first(), "most": values.iter().max(), "last": values.last() })
}

/// A short table for people.
fn markdown(json: &Value) -> String {
    let mib = |kb: &Value| format!("{:.1}", kb.as_f64().unwrap_or_default() / 1024.0);
    let machine = &json["machine"];
    let mut text = format!(
        "Clovisor {}, kernel {}; {} minutes at saturation in {} MiB, to {}; {} requests of {} clients with {} connections each\n\n\
         | memory, MiB | first | most | last |\n| --- | --- | --- | --- |\n",
        machine["clovisor"].as_str().unwrap_or_default(),
        machine["kernel"].as_str().unwrap_or_default(),
        json["minutes"],
        json["limit_mib"],
        json["to"].as_str().unwrap_or_default(),
        json["answered"],
        json["clients"],
        json["connections"],
    );
    for (name, of) in [("resident", &json["resident_kb"]), ("charged to the group", &json["charged_kb"])] {
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} |",
            mib(&of["first"]),
            mib(&of["most"]),
            mib(&of["last"])
        );
    }
    let _ = writeln!(text, "| charged at any moment | | {} | |\n", mib(&json["charged_most_kb"]));
    text += "| law | held | found |\n| --- | --- | --- |\n";
    for law in json["laws"].as_array().into_iter().flatten() {
        let of = |name: &str| law[name].as_str().unwrap_or_default().to_owned();
        let held = if law["held"] == true { "yes" } else { "NO" };
        let _ = writeln!(text, "| {} | {held} | {} |", of("law"), of("found"));
    }
    text += "\nMaps of the kernel side, KiB:";
    for map in json["maps"].as_array().into_iter().flatten() {
        let kib = map["bytes"].as_u64().unwrap_or_default() >> 10;
        let _ = write!(text, " {} {kib},", map["name"].as_str().unwrap_or_default());
    }
    text = text.trim_end_matches(',').to_owned() + "\n\n```text\n";
    for account in json["accounts"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "{}", account.as_str().unwrap_or_default());
    }
    text + "```\n"
}
