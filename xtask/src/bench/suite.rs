//! The parts of `cargo xtask bench`, one after another: each with a world of its own, if it takes one, and its rows of the result.
//!
//! What they take is built before the first of them, so that no build is measured, and only what the chosen parts take.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::choice::{Choice, Part};
use super::instructions::Benchmarks;
use super::tracer::Kind;
use super::world::{Programs, Size, World};
use super::{flows, kernel, live, peers, pods, table};
use crate::needs;
use crate::stop::Stop;
use crate::workspace;

/// Most repetitions of what is no comparison in pairs: it varies less.
const REPETITIONS: u8 = 3;

/// The chosen parts, ready to run.
pub(crate) struct Suite<'a> {
    choice: &'a Choice,
    dir: &'a Path,
    stop: Stop,
    programs: Option<Programs>,
    benchmarks: Option<Benchmarks>,
}

impl<'a> Suite<'a> {
    /// Builds what the chosen parts take.
    pub(crate) fn build(choice: &'a Choice, dir: &'a Path, stop: Stop) -> Result<Self> {
        let wants = |wanted: fn(Part) -> bool| choice.parts.iter().any(|part| wanted(*part));
        if choice.parts.contains(&Part::Flows) {
            // Before anything is built for what cannot run.
            flows::size(choice.most_flows()).map_err(|why| needs::Unmet::usage(&why))?;
        }
        let build = |wanted, build: fn() -> Result<PathBuf>| wants(wanted).then(build).transpose();
        let (mut programs, mut benchmarks) = (None, None);
        if wants(Part::is_live) {
            eprintln!("building clovisor and the ends of its connections …");
            programs = Some(Programs {
                clovisor: workspace::build_clovisor()?,
                load: workspace::build_load()?,
                receiver: build(Part::has_receiver, workspace::build_receiver)?,
            });
        }
        if wants(Part::is_in_process) {
            eprintln!("building the benchmarks in process …");
            benchmarks = Some(Benchmarks {
                sessions: workspace::build_benchmark("clovisor-trace", "sessions")?,
                spans: workspace::build_benchmark("clovisor", "spans")?,
            });
        }
        Ok(Self { choice, dir, stop, programs, benchmarks })
    }

    /// What comes of a part; nothing if it was not chosen.
    pub(crate) fn run(&self, part: Part) -> Result<Value> {
        if !self.choice.parts.contains(&part) {
            return Ok(Value::Array(Vec::new()));
        }
        match part {
            Part::Live => self.live(),
            Part::Kernel => self.kernel(),
            Part::Flows => self.flows(),
            Part::Pods => self.pods(),
            Part::Spans => self.spans(),
            Part::Instructions => self.benchmarks()?.count(self.dir),
        }
    }

    /// Before each run.
    fn step(&self, what: &str) -> Result<()> {
        ensure!(!self.stop.wanted(), "stopped");
        eprintln!("{what} …");
        Ok(())
    }

    fn programs(&self) -> Result<Programs> {
        self.programs.clone().context("a part that traces live has programs")
    }

    fn benchmarks(&self) -> Result<&Benchmarks> {
        self.benchmarks.as_ref().context("a part in process has benchmarks")
    }

    /// Repetitions of what is no comparison in pairs.
    fn repetitions(&self) -> std::ops::RangeInclusive<u8> {
        1..=self.choice.runs.min(REPETITIONS)
    }

    /// Each tracer in turn, each between two runs without.
    fn live(&self) -> Result<Value> {
        let Choice { rates, runs, seconds, .. } = self.choice;
        let world = World::new(self.dir, self.programs()?, Size::default())?;
        let mut kinds = vec![Kind::File, Kind::Otlp];
        if self.choice.peers {
            kinds.extend(peers::ALL.map(Kind::Peer));
        }
        let mut all = Vec::new();
        for &rate in rates {
            let mut series = table::Series { rate, runs: vec![live::run(&world, rate, *seconds, None)?] };
            for number in 1..=*runs {
                for &kind in &kinds {
                    let name = kind.name();
                    self.step(&format!("{rate} requests/s (0: all it can), run {number} of {runs}, {name}"))?;
                    series.runs.push(live::run(&world, rate, *seconds, Some(kind))?);
                    series.runs.push(live::run(&world, rate, *seconds, None)?);
                }
            }
            all.push(series.json());
        }
        Ok(all.into())
    }

    fn kernel(&self) -> Result<Value> {
        let world = World::new(self.dir, self.programs()?, Size::default())?;
        let mut all = Vec::new();
        for number in self.repetitions() {
            self.step(&format!("cost in the kernel, run {number}"))?;
            all.push(kernel::measure(&world, self.choice.seconds)?);
        }
        Ok(table::kernel(&all))
    }

    fn flows(&self) -> Result<Value> {
        let counts = &self.choice.flows;
        let size = flows::size(self.choice.most_flows())?;
        let world = World::new(self.dir, self.programs()?, size)?;
        let mut all = Vec::new();
        for number in self.repetitions() {
            for &count in counts {
                self.step(&format!("{count} flows, run {number}"))?;
                all.push(flows::measure(&world, count, self.choice.seconds)?);
            }
        }
        Ok(table::flows(&all))
    }

    fn pods(&self) -> Result<Value> {
        let (mut all, programs) = (Vec::new(), self.programs()?);
        for number in self.repetitions() {
            for &count in &self.choice.pods {
                self.step(&format!("a node with {count} pods, run {number}"))?;
                all.push(pods::measure(self.dir, programs.clone(), count, self.choice.seconds)?);
            }
        }
        Ok(table::pods(&all))
    }

    /// All ways in turn, so that what drifts hits all of them.
    fn spans(&self) -> Result<Value> {
        let (mut all, runs) = (Vec::new(), self.choice.runs);
        for number in 1..=runs {
            self.step(&format!("packets to sessions and to encoded spans, run {number} of {runs}"))?;
            all.extend(self.benchmarks()?.time(self.dir, self.choice.seconds)?);
        }
        Ok(table::spans(&all))
    }
}
