//! Vaults of many snapshots or many nodes, and nodes of many files: what each command takes there.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::data::run as run_silently;
use super::measure;
use super::report::figure;
use super::tools::{Place, quoted};
use super::{built, eprint_line};

/// What is measured; nothing of it where nothing is asked for.
#[derive(Default)]
pub(super) struct Options {
    /// Snapshots of one node, ascending.
    snapshots: Vec<u64>,
    /// Nodes of five snapshots each, ascending.
    nodes: Vec<u64>,
    /// Files of 200 bytes in one node.
    files: Vec<u64>,
}

/// Snapshots of each of many nodes.
const EACH: u64 = 5;
/// Files of one directory.
const IN_A_DIRECTORY: u64 = 1000;
const FILE_BYTES: usize = 200;

impl Options {
    /// Takes a flag; whether it is one of these.
    pub(super) fn take(&mut self, flag: &str, value: &str) -> Result<bool> {
        let numbers = || -> Result<Vec<u64>> {
            let mut numbers = super::numbers(value)?;
            numbers.sort_unstable();
            Ok(numbers)
        };
        match flag {
            "--many-snapshots" => self.snapshots = numbers()?,
            "--many-nodes" => self.nodes = numbers()?,
            "--many-files" => self.files = numbers()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A command by its title, with the place of each node's directory before it where it needs one.
struct Row {
    title: &'static str,
    command: String,
}

pub(super) fn run(options: &super::Options) -> Result<String> {
    let many = &options.many;
    let mut text = String::new();
    if !many.snapshots.is_empty() {
        let counts = many.snapshots.iter().map(|&count| (1, count)).collect::<Vec<_>>();
        text += &of_vault(options, "snapshots of one node", &counts, |(_, snapshots)| snapshots)?;
    }
    if !many.nodes.is_empty() {
        let counts = many.nodes.iter().map(|&count| (count, EACH)).collect::<Vec<_>>();
        let head = "nodes of five snapshots each";
        text += &of_vault(options, head, &counts, |(nodes, _)| nodes)?;
    }
    if !many.files.is_empty() {
        text += &of_files(options, &many.files)?;
    }
    Ok(text)
}

/// One vault that grows, with these nodes and so many snapshots of each.
fn of_vault(
    options: &super::Options,
    head: &str,
    counts: &[(u64, u64)],
    shown: impl Fn((u64, u64)) -> u64,
) -> Result<String> {
    let place = Place::make(&options.dir.join("place"), &options.program)?;
    place.init_vault(&place.dir().join("vault"))?;
    let nodes = place.dir().join("nodes");
    let program = quoted(&options.program);
    let back = quoted(&place.dir().join("back"));
    let row = |title, command: &str| Row { title, command: format!("{program} {command} --json") };
    let rows = [
        row("backup of one", &format!("backup {} --node n0", quoted(&nodes.join("n0")))),
        row("`snapshots`", "snapshots"),
        row("`status`", "status"),
        row("`check`", "check"),
        row("`prune --dry-run`", "prune --dry-run"),
        row("restore of one", &format!("restore latest {back} --node n0")),
    ];
    let mut columns = Vec::new();
    for &(count, each) in counts {
        eprint_line(&format!("{} {head}", shown((count, each))))?;
        run_silently(
            Command::new(built("many-snapshots")?)
                .arg(&nodes)
                .args([count.to_string(), each.to_string()])
                .envs(place.environment()),
        )?;
        place.prepare(&format!("rm -rf {back}"))?;
        columns.push((shown((count, each)), measured(&rows, &place)?));
    }
    place.remove()?;
    table(head, &rows, &columns)
}

/// Nodes of so many small files.
fn of_files(options: &super::Options, counts: &[u64]) -> Result<String> {
    let head = "files of 200 bytes in one node";
    let (mut titles, mut columns) = (Vec::new(), Vec::new());
    for &count in counts {
        eprint_line(&format!("{count} {head}"))?;
        let place = Place::make(&options.dir.join("place"), &options.program)?;
        place.init_vault(&place.dir().join("vault"))?;
        let node = place.dir().join("node");
        let mut random = fastrand::Rng::with_seed(count);
        let mut bytes = vec![0; FILE_BYTES];
        for file in 0..count {
            let dir = node.join((file / IN_A_DIRECTORY).to_string());
            if file % IN_A_DIRECTORY == 0 {
                std::fs::create_dir_all(&dir)?;
            }
            random.fill(&mut bytes);
            std::fs::write(dir.join(file.to_string()), &bytes)?;
        }
        // Times of files that are younger than two seconds prove nothing: they would be read again.
        place.prepare("sync; sleep 3")?;
        let program = quoted(&options.program);
        let row =
            |title, command: &str| Row { title, command: format!("{program} {command} --json") };
        let backup = format!("backup {} --node n0", quoted(&node));
        let back = quoted(&place.dir().join("back"));
        let before = [row("full backup", &backup), row("of nothing new", &backup)];
        let mut samples = measured(&before, &place)?;
        for file in (0..count).step_by(100) {
            let dir = node.join((file / IN_A_DIRECTORY).to_string());
            std::fs::write(dir.join(file.to_string()), b"changed")?;
        }
        place.prepare("sync; sleep 3")?;
        let after = [
            row("of a hundredth changed", &backup),
            row("`snapshots`", "snapshots"),
            row("`status`", "status"),
            row("`check`", "check"),
            row("`check --read-data`", "check --read-data"),
            row("restore", &format!("restore latest {back} --node n0")),
        ];
        samples.extend(measured(&after, &place)?);
        place.remove()?;
        columns.push((count, samples));
        titles = before.into_iter().chain(after).collect();
    }
    table(head, &titles, &columns)
}

fn measured(rows: &[Row], place: &Place) -> Result<Vec<measure::Sample>> {
    rows.iter()
        .map(|row| measure::run(&row.command, place).with_context(|| row.title.to_owned()))
        .collect()
}

/// A row for each command; seconds and memory for each count.
fn table(head: &str, rows: &[Row], columns: &[(u64, Vec<measure::Sample>)]) -> Result<String> {
    let mut text = format!("| {head} |");
    for (count, _) in columns {
        write!(text, " {count}: s | processor, s | peak, MiB |")?;
    }
    text += "\n|---|";
    text += &"---|---|---|".repeat(columns.len());
    text.push('\n');
    for (number, row) in rows.iter().enumerate() {
        write!(text, "| {} |", row.title)?;
        for (_, samples) in columns {
            let of = |get: fn(&measure::Sample) -> f64| samples.get(number).map(get);
            write!(
                text,
                " {} | {} | {} |",
                figure(of(|sample| sample.seconds), 2),
                figure(of(|sample| sample.busy_seconds), 2),
                figure(of(|sample| sample.peak_mib), 0)
            )?;
        }
        text.push('\n');
    }
    text.push('\n');
    Ok(text)
}
