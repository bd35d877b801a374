//! What is stored of nodes of several shapes, and how long a full backup of each takes: at each effort, and by the
//! tools that compress as well.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::data::{Kind, Node, run as run_silently};
use super::ledger::Ledger;
use super::measure::{self, Sample, median};
use super::report::figure;
use super::tools::{Place, Tool, What};
use super::{Options, built, eprint_line};

/// Megabytes of each shape.
const SIZE_MB: &str = "300";
/// What `shapes` of `highwater-bench` makes.
const SHAPES: [(&str, &str); 4] = [
    ("channels", "channels of Fiber, RocksDB with LZ4"),
    ("transactions", "transactions, RocksDB uncompressed"),
    ("accounts", "accounts, SQLite"),
    ("settings", "settings, small files of JSON"),
];

/// A tool and what it is told besides; the first one is what the others are compared with.
const WAYS: [(Tool, &str); 5] = [
    (Tool::Highwater, "--effort balanced"),
    (Tool::Highwater, "--effort fast"),
    (Tool::Highwater, "--effort dense"),
    (Tool::Restic, ""),
    (Tool::Rustic, ""),
];

/// The directory of all shapes, made unless they are there.
pub(super) fn make(options: &Options) -> Result<PathBuf> {
    let dir = options.dir.join("shapes");
    std::fs::create_dir_all(&dir)?;
    run_silently(Command::new(built("shapes")?).arg(&dir).arg(SIZE_MB))?;
    Ok(dir)
}

/// A table with a row for each shape and way, the ways in turn.
pub(super) fn run(options: &Options, ledger: &mut Ledger) -> Result<String> {
    let dir = make(options)?;
    let mut text = String::from(
        "| node | MB | | full backup, s | to balanced | processor, s | stored, MB | to balanced |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let ways: Vec<(Tool, &str)> = WAYS
        .into_iter()
        .filter(|(tool, _)| options.tools.contains(tool) && tool.is_there())
        .collect();
    for (name, title) in SHAPES {
        // No tool of one engine is run: which it is does not matter here.
        let node = Node { kind: Kind::Raw, dir: dir.join(name) };
        let mut samples: Vec<Vec<Sample>> = ways.iter().map(|_| Vec::new()).collect();
        let mut stored = vec![0.0; ways.len()];
        for round in 0..options.repeat {
            eprint_line(&format!("{name}, round {}", round + 1))?;
            for (number, &(tool, more)) in ways.iter().enumerate() {
                let place = Place::make(&options.dir.join("place"), &options.program)?;
                let steps = tool.steps(&node, &place)?;
                let full = steps.iter().find(|step| step.what == What::Full);
                let command = &full.context("a tool without a full backup")?.command;
                node.warm()?;
                let sample = measure::run(&format!("{command} {more}"), &place)
                    .with_context(|| format!("{tool} {more}"))?;
                samples[number].push(sample);
                stored[number] = place.stored_mb()?;
                place.remove()?;
            }
        }
        ledger.add(format!("{name}: stored, MB"), vec![stored[0]]);
        if let Some(restic) = ways.iter().position(|(tool, _)| *tool == Tool::Restic) {
            let rounds = samples[0].iter().zip(&samples[restic]);
            let ratios = rounds.map(|(own, peer)| own.seconds / peer.seconds.max(f64::EPSILON));
            ledger.add(format!("{name}: full backup to restic"), ratios.collect());
        }
        let middle =
            |of: &[Sample], figure: fn(&Sample) -> f64| median(of.iter().map(figure).collect());
        let mb = super::tools::bytes_below(&node.dir)? as f64 / 1e6;
        let first = middle(&samples[0], |sample| sample.seconds);
        for (number, (tool, more)) in ways.iter().enumerate() {
            let seconds = middle(&samples[number], |sample| sample.seconds);
            writeln!(
                text,
                "| {title} | {mb:.0} | {} | {} | {} | {} | {} | {} |",
                format!("{} {more}", tool.title()).trim(),
                figure(Some(seconds), 2),
                figure(Some(seconds / first), 2),
                figure(Some(middle(&samples[number], |sample| sample.busy_seconds)), 2),
                figure(Some(stored[number]), 1),
                figure(Some(stored[number] / stored[0]), 3),
            )?;
        }
    }
    Ok(text)
}
