//! Whole processes, measured by GNU time: elapsed and processor seconds, peak memory.

use std::collections::BTreeMap;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail};

use super::tools::{Place, Tool, What};

/// What GNU time prints: elapsed, user and system seconds, peak memory in KiB.
const FORMAT: &str = "%e %U %S %M";

/// One run of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) seconds: f64,
    /// Of the processor, user and system.
    pub(super) busy_seconds: f64,
    pub(super) peak_mib: f64,
}

/// Runs a shell command; whatever it prints is dropped unless it fails.
pub(super) fn run(command: &str, place: &Place) -> Result<Sample> {
    let report = place.dir().join("time");
    let output = Command::new("/usr/bin/time")
        .args(["--quiet", "--format", FORMAT, "--output"])
        .arg(&report)
        .args(["bash", "-euo", "pipefail", "-c", command])
        .envs(place.environment())
        .output()
        .context("GNU time is needed: Debian's package `time`")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("`{command}` failed: {text}");
    }
    let text = std::fs::read_to_string(&report)?;
    let fields: Vec<f64> =
        text.split_whitespace().map(|field| Ok(field.parse()?)).collect::<Result<_>>()?;
    let [seconds, user, system, peak_kib] = fields[..] else { bail!("time printed `{text}`") };
    Ok(Sample { seconds, busy_seconds: user + system, peak_mib: peak_kib / 1024.0 })
}

/// A process that goes on beside what is measured, ended when this is dropped.
pub(super) struct Running(pub(super) Child);

impl Running {
    /// The most memory that it has had, in MiB.
    pub(super) fn peak_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("the kernel does not tell VmHWM")?.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The middle one.
pub(super) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// What was measured, by tool and step.
#[derive(Default)]
pub(super) struct Samples {
    steps: BTreeMap<(Tool, What), Vec<Sample>>,
    stored_mb: BTreeMap<Tool, f64>,
}

impl Samples {
    pub(super) fn add(&mut self, tool: Tool, what: What, sample: Sample) {
        self.steps.entry((tool, what)).or_default().push(sample);
    }

    pub(super) fn add_stored(&mut self, tool: Tool, mb: f64) {
        self.stored_mb.insert(tool, mb);
    }

    pub(super) fn stored_mb(&self, tool: Tool) -> Option<f64> {
        self.stored_mb.get(&tool).copied()
    }

    /// So many times as long one took as another, in each round; none where one of them does not do it.
    pub(super) fn ratios(&self, tool: Tool, peer: Tool, what: What) -> Vec<f64> {
        let rounds = |tool| self.steps.get(&(tool, what)).map_or(&[][..], Vec::as_slice);
        let both = rounds(tool).iter().zip(rounds(peer));
        both.map(|(own, peer)| own.seconds / peer.seconds.max(f64::EPSILON)).collect()
    }

    /// Of each figure the median; `None` where the tool does not do it.
    pub(super) fn median(&self, tool: Tool, what: What) -> Option<Sample> {
        let samples = self.steps.get(&(tool, what))?;
        let middle = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
        Some(Sample {
            seconds: middle(|sample| sample.seconds),
            busy_seconds: middle(|sample| sample.busy_seconds),
            peak_mib: middle(|sample| sample.peak_mib),
        })
    }
}
