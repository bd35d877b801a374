//! `cargo xtask bench`: backup, check and restore beside the tools that people use today, on the same
//! data in one run. Prints tables for `docs/performance.md`.

mod data;
mod measure;
mod report;
mod s3;
mod series;
mod tools;
mod vss;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use data::{Kind, Node};
use measure::Samples;
use tools::{Place, Tool};

const USAGE: &str = "usage: cargo xtask bench [--size MB] [--repeat N] [--sets lz4,raw,sqlite] \
                     [--scale MB,MB,…] [--dir DIR] [--program FILE] [--tools NAME,…]";

/// What is measured.
struct Options {
    /// Of each node, in MB.
    size_mb: u64,
    repeat: usize,
    sets: Vec<Kind>,
    /// Sizes in MB at which the growth of the cost is shown; none: no series.
    scale_mb: Vec<u64>,
    dir: PathBuf,
    program: PathBuf,
    tools: Vec<Tool>,
}

/// Runs it all.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let [only, part, rest @ ..] = args
        && only == "--only"
    {
        return match part.as_str() {
            "vss" => vss::run(rest, &mut std::io::stdout().lock()),
            _ => bail!("{part} is no part of the bench; {USAGE}; or {}", vss::USAGE),
        };
    }
    let options = parse(args)?;
    std::fs::create_dir_all(&options.dir)?;
    let tools: Vec<Tool> = options.tools.iter().copied().filter(|tool| tool.is_there()).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", report::machine(&options, &tools)?)?;
    let mut local = Vec::new();
    for &kind in &options.sets {
        let node = Node::make(&options.dir, kind, options.size_mb)?;
        let mut all = Samples::default();
        for round in 0..options.repeat {
            eprint_line(&format!("{kind} {} MB, round {}", options.size_mb, round + 1))?;
            for &tool in &tools {
                if tool.fits(kind) {
                    measure_tool(&options, tool, &node, &mut all)?;
                }
            }
        }
        writeln!(out, "{}", report::comparison(&node, &tools, &all)?)?;
        out.flush()?;
        local.push(all);
    }
    match s3::program() {
        Some(server) => writeln!(out, "{}", s3::run_all(&options, &server, &local)?)?,
        None => eprint_line("S3 skipped: `scripts/setup s3s-fs` builds the server")?,
    }
    if !options.scale_mb.is_empty() {
        writeln!(out, "{}", series::run(&options)?)?;
    }
    Ok(())
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
    let mut options = Options {
        size_mb: 2000,
        repeat: 3,
        sets: vec![Kind::Lz4, Kind::Raw, Kind::Sqlite],
        scale_mb: Vec::new(),
        dir: cache.join("highwater/bench-data"),
        program: program()?,
        tools: Tool::ALL.to_vec(),
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
            "--scale" => {
                options.scale_mb =
                    value.split(',').map(|size| Ok(size.parse()?)).collect::<Result<_>>()?;
            }
            "--dir" => options.dir = std::path::absolute(value)?,
            "--program" => options.program = std::path::absolute(value)?,
            "--tools" => {
                options.tools = value.split(',').map(str::parse).collect::<Result<_>>()?;
            }
            _ => bail!("{flag} is unknown; {USAGE}"),
        }
    }
    Ok(options)
}

/// The optimised program, where `make build` puts it.
fn program() -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(std::path::absolute(target.join("release/highwater"))?)
}

fn eprint_line(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "bench: {text}")?)
}
