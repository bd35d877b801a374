//! `cargo xtask bench`: backup, check and restore beside the tools that people use today, on the same
//! data in one run; streams, agents inside a process, servers of stores, replicas. Prints tables for `docs/performance.md`,
//! and fails where a ratio is worse than in the run before, by more than the spread of both.

mod agent;
mod data;
mod ledger;
mod many;
mod measure;
pub(crate) mod ratios;
mod replica;
mod report;
mod s3;
mod series;
mod shapes;
mod slow;
mod stream;
mod tools;
mod vss;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use data::{Kind, Node};
use ledger::Ledger;
use measure::Samples;
use tools::{Place, Tool, What};

const USAGE: &str = "usage: cargo xtask bench [--size MB] [--repeat N] [--sets lz4,raw,sqlite] \
                     [--scale MB,MB,…] [--dir DIR] [--program FILE] [--record FILE] [--tools NAME,…] \
                     [--slow-disk MB/s,MB/s,…] \
                     [--only tools,shapes,s3,scale,many,slow,stream,agent,vss,replica] \
                     [--many-snapshots N,N,…] [--many-nodes N,N,…] [--many-files N,N,…] \
                     [--vss-servers sqlite,postgres,upstream] [--vss-seconds N] [--vss-keys N] \
                     [--vss-minutes N] [--vss-dir DIR] [--replica-keys N] [--replica-seconds N]";

/// The parts of a run, each with tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Tools,
    Shapes,
    S3,
    Scale,
    Many,
    Slow,
    Stream,
    Agent,
    Vss,
    Replica,
}

impl Part {
    const ALL: [(Part, &str); 10] = [
        (Part::Tools, "tools"),
        (Part::Shapes, "shapes"),
        (Part::S3, "s3"),
        (Part::Scale, "scale"),
        (Part::Many, "many"),
        (Part::Slow, "slow"),
        (Part::Stream, "stream"),
        (Part::Agent, "agent"),
        (Part::Vss, "vss"),
        (Part::Replica, "replica"),
    ];
}

impl std::str::FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Part> {
        let found = Part::ALL.into_iter().find(|(_, name)| *name == text);
        let (part, _) =
            found.with_context(|| format!("`{text}` is no part of the bench; {USAGE}"))?;
        Ok(part)
    }
}

/// What is measured.
struct Options {
    /// Of each node, in MB.
    size_mb: u64,
    repeat: usize,
    sets: Vec<Kind>,
    /// Sizes in MB at which the growth of the cost is shown; none: no series.
    scale_mb: Vec<u64>,
    /// How fast a slow disk writes, in MB a second; none: no such disk.
    slow_mb: Vec<u64>,
    dir: PathBuf,
    program: PathBuf,
    /// The figures of the run before, and then of this one.
    record: PathBuf,
    tools: Vec<Tool>,
    parts: Vec<Part>,
    many: many::Options,
    vss: vss::Options,
    replica: replica::Options,
}

/// Runs what was chosen.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    std::fs::create_dir_all(&options.dir)?;
    let tools: Vec<Tool> = options.tools.iter().copied().filter(|tool| tool.is_there()).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", report::machine(&options, &tools)?)?;
    let mut ledger = Ledger::new(options.setting());
    let local = match options.has(Part::Tools) {
        true => compare(&options, &tools, &mut ledger, &mut out)?,
        false => Vec::new(),
    };
    if options.has(Part::Shapes) {
        writeln!(out, "{}", shapes::run(&options, &mut ledger)?)?;
    }
    if options.has(Part::S3) {
        match s3::program() {
            Some(server) => writeln!(out, "{}", s3::run_all(&options, &server, &local)?)?,
            None => eprint_line("S3 skipped: `scripts/setup s3s-fs` builds the server")?,
        }
    }
    if options.has(Part::Scale) && !options.scale_mb.is_empty() {
        writeln!(out, "{}", series::run(&options)?)?;
    }
    if options.has(Part::Many) {
        write!(out, "{}", many::run(&options)?)?;
        out.flush()?;
    }
    if options.has(Part::Slow) && !options.slow_mb.is_empty() {
        match slow::obstacle()? {
            None => writeln!(out, "{}", slow::run(&options, &mut ledger)?)?,
            Some(why) => eprint_line(&format!("a slow disk: SKIPPED, {why}"))?,
        }
    }
    if options.has(Part::Stream) {
        writeln!(out, "{}", stream::run(&options)?)?;
    }
    if options.has(Part::Agent) {
        writeln!(out, "{}", agent::run(&options)?)?;
    }
    if options.has(Part::Vss) {
        vss::run(&options, &mut out)?;
    }
    if options.has(Part::Replica) {
        writeln!(out, "{}", replica::run(&options)?)?;
    }
    Ok(writeln!(out, "{}", ledger.settle(&options.record)?)?)
}

/// Every tool on every node; the figures of each node.
fn compare(
    options: &Options,
    tools: &[Tool],
    ledger: &mut Ledger,
    out: &mut impl Write,
) -> Result<Vec<Samples>> {
    let mut local = Vec::new();
    for &kind in &options.sets {
        let node = Node::make(&options.dir, kind, options.size_mb)?;
        let mut all = Samples::default();
        for round in 0..options.repeat {
            eprint_line(&format!("{kind} {} MB, round {}", options.size_mb, round + 1))?;
            for &tool in tools {
                if tool.fits(kind) {
                    measure_tool(options, tool, &node, &mut all)?;
                }
            }
        }
        writeln!(out, "{}", report::comparison(&node, tools, &all)?)?;
        for what in [What::Full, What::Unchanged, What::Check, What::Restore] {
            for peer in [Tool::Copy, Tool::Restic] {
                ledger.add(
                    format!("{kind}: {what} to {peer}"),
                    all.ratios(Tool::Highwater, peer, what),
                );
            }
        }
        ledger.add(
            format!("{kind}: stored, MB"),
            all.stored_mb(Tool::Highwater).into_iter().collect(),
        );
        out.flush()?;
        local.push(all);
    }
    Ok(local)
}

impl Options {
    /// What figures depend on that two runs can be compared by.
    fn setting(&self) -> String {
        let sets: Vec<String> = self.sets.iter().map(Kind::to_string).collect();
        format!("{} MB of {}, {} rounds", self.size_mb, sets.join(", "), self.repeat)
    }

    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

/// All that one tool does with a node, in a place of its own that is removed again.
fn measure_tool(options: &Options, tool: Tool, node: &Node, all: &mut Samples) -> Result<()> {
    let place = Place::make(&options.dir.join("place"), &options.program)?;
    for step in tool.steps(node, &place)? {
        // Every tool finds the node's content in memory.
        node.warm()?;
        let sample = measure::run(&step.command, &place)
            .with_context(|| format!("{tool}: {}", step.what))?;
        all.add(tool, step.what, sample);
    }
    all.add_stored(tool, place.stored_mb()?);
    place.remove()
}

fn parse(args: &[String]) -> Result<Options> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(home).join(".cache"), PathBuf::from);
    let data = cache.join("highwater/bench-data");
    let mut options = Options {
        size_mb: 2000,
        repeat: 3,
        sets: vec![Kind::Lz4, Kind::Raw, Kind::Sqlite],
        scale_mb: Vec::new(),
        slow_mb: Vec::new(),
        record: data.join("last.json"),
        dir: data,
        program: built("highwater")?,
        tools: Tool::ALL.to_vec(),
        parts: Part::ALL.map(|(part, _)| part).to_vec(),
        many: many::Options::default(),
        vss: vss::Options::default(),
        replica: replica::Options::default(),
    };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} takes a value; {USAGE}"))?;
        match flag.as_str() {
            "--size" => options.size_mb = value.parse()?,
            "--repeat" => options.repeat = value.parse()?,
            "--sets" => {
                options.sets = value.split(',').map(str::parse).collect::<Result<_>>()?;
            }
            "--scale" => options.scale_mb = numbers(value)?,
            "--slow-disk" => options.slow_mb = numbers(value)?,
            "--dir" => options.dir = std::path::absolute(value)?,
            "--program" => options.program = std::path::absolute(value)?,
            "--record" => options.record = std::path::absolute(value)?,
            "--tools" => {
                options.tools = value.split(',').map(str::parse).collect::<Result<_>>()?;
            }
            "--only" => {
                options.parts = value.split(',').map(str::parse).collect::<Result<_>>()?;
            }
            _ if options.vss.take(flag, value)?
                || options.replica.take(flag, value)?
                || options.many.take(flag, value)? => {}
            _ => bail!("{flag} is unknown; {USAGE}"),
        }
    }
    Ok(options)
}

/// Numbers with commas between them.
fn numbers(text: &str) -> Result<Vec<u64>> {
    text.split(',').map(|number| Ok(number.parse()?)).collect()
}

/// What is built optimised: the program, where `make build` puts it, and those of `highwater-bench`.
fn built(name: &str) -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(std::path::absolute(target.join("release").join(name))?)
}

fn eprint_line(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "bench: {text}")?)
}
