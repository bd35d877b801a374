//! How the cost of a backup grows: with the size of the node, and with what has changed.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Options;
use super::data::Node;
use super::measure;
use super::report::figure;
use super::tools::{Place, quoted};

/// A full backup, one of nothing new, one after a hundredth has changed; for each size and each node.
pub(super) fn run(options: &Options) -> Result<String> {
    let mut text = String::from(
        "| node | MB | full, s | peak, MiB | stored, MB | unchanged, s | a hundredth changed, s | new in the node, MB | stored, MB |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for &kind in &options.sets {
        for &size_mb in &options.scale_mb {
            let made = Node::make(&options.dir, kind, size_mb)?;
            let place = Place::make(&options.dir.join("place"), &options.program)?;
            let node = made.copy(place.dir().join("node"))?;
            place.init_vault(&place.dir().join("vault"))?;
            // Times of files that are younger than two seconds prove nothing: they would be read again.
            super::data::run(std::process::Command::new("bash").args(["-c", "sync; sleep 3"]))?;
            let backup = format!(
                "{} backup {} --node node --json > {}/answer",
                quoted(&options.program),
                quoted(&node.dir),
                quoted(place.dir())
            );
            node.warm()?;
            let full = measure::run(&backup, &place).context("full backup")?;
            let first = answer(place.dir())?;
            let unchanged = measure::run(&backup, &place).context("unchanged backup")?;
            let before = files(&node.dir)?;
            node.change(size_mb)?;
            let new: u64 = files(&node.dir)?
                .into_iter()
                .filter(|(name, _)| !before.iter().any(|(known, _)| known == name))
                .map(|(_, bytes)| bytes)
                .sum();
            let changed = measure::run(&backup, &place).context("backup of what changed")?;
            let second = answer(place.dir())?;
            writeln!(
                text,
                "| {} | {:.0} | {} | {} | {:.0} | {} | {} | {:.1} | {:.1} |",
                kind.describe(),
                megabytes(&first, "bytes_total")?,
                figure(Some(full.seconds), 2),
                figure(Some(full.peak_mib), 0),
                megabytes(&first, "bytes_stored")?,
                figure(Some(unchanged.seconds), 2),
                figure(Some(changed.seconds), 2),
                new as f64 / 1e6,
                megabytes(&second, "bytes_stored")?,
            )?;
            place.remove()?;
        }
    }
    Ok(text)
}

fn files(dir: &Path) -> Result<Vec<(std::ffi::OsString, u64)>> {
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name(), entry.metadata()?.len()))
    };
    std::fs::read_dir(dir)?.map(entry).collect()
}

fn answer(dir: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(dir.join("answer"))?)?)
}

fn megabytes(answer: &Value, field: &str) -> Result<f64> {
    let bytes = answer[field].as_u64().with_context(|| format!("no {field} in the answer"))?;
    Ok(bytes as f64 / 1e6)
}
