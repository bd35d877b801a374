//! Tables in Markdown: medians in seconds, and ratios within the same run.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;

use super::Options;
use super::data::Node;
use super::measure::Samples;
use super::tools::{Tool, What, bytes_below};

/// The machine, and the versions of what is measured.
pub(super) fn machine(options: &Options, tools: &[Tool]) -> Result<String> {
    let mut text = String::new();
    let cores = std::thread::available_parallelism()?;
    let shell = |command: &str| -> Result<String> {
        let output = Command::new("bash").args(["-c", command]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let model = shell("grep --max-count=1 'model name' /proc/cpuinfo | cut -d: -f2")?;
    let memory = shell("awk '/MemTotal/ { printf \"%.0f GB\", $2 / 1e6 }' /proc/meminfo")?;
    let disk = options.dir.display();
    let file_system = shell(&format!("findmnt --noheadings --output FSTYPE --target '{disk}'"))?;
    writeln!(
        text,
        "{cores} cores ({}), {memory} of memory, {file_system}; {} rounds, each tool in turn; medians.",
        model.trim(),
        options.repeat
    )?;
    let versions: Vec<String> =
        tools.iter().filter_map(|tool| tool.version(&options.program)).collect();
    writeln!(text, "Versions: {}.", versions.join("; "))?;
    Ok(text)
}

/// One node: every tool, every step.
pub(super) fn comparison(node: &Node, tools: &[Tool], all: &Samples) -> Result<String> {
    let mut text = String::new();
    let mb = bytes_below(&node.dir)? as f64 / 1e6;
    writeln!(text, "### {}, {mb:.0} MB\n", node.kind.describe())?;
    writeln!(
        text,
        "| | full backup, s | to highwater | processor, s | peak, MiB | stored, MB | unchanged, s | check of every byte, s | restore, s | to highwater |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|---|")?;
    let seconds = |tool, what| all.median(tool, what).map(|sample| sample.seconds);
    let ratio = |tool, what| {
        Some(seconds(tool, what)? / seconds(Tool::Highwater, what).filter(|own| *own > 0.0)?)
    };
    for &tool in tools.iter().filter(|tool| tool.fits(node.kind)) {
        let full = all.median(tool, What::Full);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            tool.title(),
            figure(full.map(|sample| sample.seconds), 2),
            figure(ratio(tool, What::Full), 2),
            figure(full.map(|sample| sample.busy_seconds), 2),
            figure(full.map(|sample| sample.peak_mib), 0),
            figure(all.stored_mb(tool), 0),
            figure(seconds(tool, What::Unchanged), 2),
            figure(seconds(tool, What::Check), 2),
            figure(seconds(tool, What::Restore), 2),
            figure(ratio(tool, What::Restore), 2),
        )?;
    }
    Ok(text)
}

pub(super) fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}
