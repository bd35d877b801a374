//! A node streamed over loopback, beside a local backup of it and an export.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Options;
use super::data::Node;
use super::measure::{self, Running, Samples};
use super::report::figure;
use super::tools::{Place, Tool, What, bytes_below, quoted};

/// For each node a full backup, an export, and a pull from a server: that backs up (nothing new) first.
pub(super) fn run(options: &Options) -> Result<String> {
    let mut text = String::from(
        "| node | local backup, s | `export`, s | `pull`, s | `pull` to local backup | peak of `pull`, MiB | peak of `serve`, MiB |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for &kind in &options.sets {
        let node = Node::make(&options.dir, kind, options.size_mb)?;
        let mut all = Samples::default();
        let mut peaks = Vec::new();
        for round in 0..options.repeat {
            super::eprint_line(&format!("stream of {kind}, round {}", round + 1))?;
            peaks.push(measure_round(options, &node, &mut all)?);
        }
        let median = |what| all.median(Tool::Highwater, what);
        let seconds = |what| median(what).map(|sample| sample.seconds);
        let ratio = seconds(What::Pull).zip(seconds(What::Full)).map(|(pull, full)| pull / full);
        writeln!(
            text,
            "| {}, {:.0} MB | {} | {} | {} | {} | {} | {:.0} |",
            kind.describe(),
            bytes_below(&node.dir)? as f64 / 1e6,
            figure(seconds(What::Full), 2),
            figure(seconds(What::Export), 2),
            figure(seconds(What::Pull), 2),
            figure(ratio, 2),
            figure(median(What::Pull).map(|sample| sample.peak_mib), 0),
            measure::median(peaks),
        )?;
    }
    Ok(text)
}

/// One of each; the peak memory of the server in MiB.
fn measure_round(options: &Options, node: &Node, all: &mut Samples) -> Result<f64> {
    let place = Place::make(&options.dir.join("place"), &options.program)?;
    place.init_vault(&place.dir().join("vault"))?;
    let (program, source, out) = (quoted(&options.program), quoted(&node.dir), quoted(place.dir()));
    let mut step = |what, command: String| -> Result<()> {
        node.warm()?;
        let sample = measure::run(&format!("{program} {command} --json"), &place);
        all.add(Tool::Highwater, what, sample.with_context(|| what.to_string())?);
        Ok(())
    };
    step(What::Full, format!("backup {source} --node node"))?;
    step(What::Export, format!("export latest --output {out}/exported.hwa"))?;
    let server = Server::start(node, &place)?;
    step(What::Pull, format!("pull --from http://{} --output {out}/pulled.hwa", server.address))?;
    let peak = server.process.peak_mib()?;
    drop(server);
    place.remove()?;
    Ok(peak)
}

/// `highwater serve` of one node.
struct Server {
    process: Running,
    address: String,
    /// Kept, so that what it tells has a place to go.
    _told: BufReader<ChildStdout>,
}

impl Server {
    fn start(node: &Node, place: &Place) -> Result<Server> {
        let settings = place.dir().join("serve.toml");
        let (dir, data_dir) = (toml(&node.dir), toml(&place.dir().join("agent")));
        std::fs::write(
            &settings,
            format!(
                "listen = \"127.0.0.1:0\"\ndata_dir = {data_dir}\n\
                 [[node]]\nname = \"node\"\ndir = {dir}\n"
            ),
        )?;
        let mut process = Command::new(place.program())
            .args(["serve", "--json", "--config"])
            .arg(&settings)
            .envs(place.environment())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let told = process.stdout.take().context("the server has no output")?;
        let process = Running(process);
        let mut told = BufReader::new(told);
        loop {
            let mut line = String::new();
            told.read_line(&mut line)?;
            let event: Value = serde_json::from_str(&line)
                .with_context(|| format!("the server does not listen; it told `{line}`"))?;
            if event["event"] == "listening" {
                let address = event["address"].as_str().context("no address")?.to_owned();
                return Ok(Server { process, address, _told: told });
            }
        }
    }
}

/// A path as a string of TOML; what JSON escapes, TOML reads.
fn toml(path: &std::path::Path) -> String {
    Value::from(path.display().to_string()).to_string()
}
