//! Agents inside a process: what they cost that have nothing to do, and what one costs a node that writes.
//! Both are measured by programs of `highwater-bench`.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Options;
use super::tools::Place;

/// Agents in one process, and seconds for which they are watched.
const AGENTS: &str = "50";
const IDLE_SECONDS: &str = "20";
/// How long the node writes in each round, beside each.
const WRITE_SECONDS: &str = "8";

pub(super) fn run(options: &Options) -> Result<String> {
    Ok(format!("{}\n{}", idle()?, overhead(options)?))
}

fn idle() -> Result<String> {
    super::eprint_line("idle agents")?;
    let measured = printed_by("idle-agents", &[AGENTS, IDLE_SECONDS])?;
    let number = |field: &str| figure(&measured, field);
    Ok(format!(
        "| agents | first backups, s | resident without, MiB | resident, MiB | share of a core, % |\n\
         |---|---|---|---|---|\n\
         | {AGENTS} | {:.1} | {:.0} | {:.0} | {:.3} |\n",
        number("first_backups_seconds")?,
        number("resident_before_kib")? / 1024.0,
        number("resident_kib")? / 1024.0,
        number("processor_percent_of_one_core")?,
    ))
}

fn overhead(options: &Options) -> Result<String> {
    super::eprint_line("a node that writes beside an agent")?;
    let place = Place::make(&options.dir.join("place"), &options.program)?;
    let (dir, rounds) = (place.dir().display().to_string(), options.repeat.to_string());
    let measured = printed_by("agent-overhead", &[&dir, WRITE_SECONDS, &rounds])?;
    place.remove()?;
    let mut text =
        String::from("| beside | rows a second | lost, % | backups |\n|---|---|---|---|\n");
    for (title, name) in [
        ("nothing", "nothing"),
        ("an idle agent", "idle_agent"),
        ("backups without a break", "backups"),
        ("as many checkpoints alone", "checkpoints"),
        ("backups at the node's priority", "backups_at_normal_priority"),
    ] {
        let number = |field: &str| figure(&measured[name], field);
        writeln!(
            text,
            "| {title} | {:.0} | {:.1} | {} |",
            number("rows_per_second")?,
            number("lost_percent")?,
            number("backups")?,
        )?;
    }
    Ok(text)
}

/// What a program of `highwater-bench` prints, which `make bench` has built.
pub(super) fn printed_by(name: &str, arguments: &[&str]) -> Result<Value> {
    let program = super::built(name)?;
    let output = Command::new(&program)
        .args(arguments)
        .output()
        .with_context(|| format!("{}: `make bench` builds it", program.display()))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub(super) fn figure(measured: &Value, field: &str) -> Result<f64> {
    measured[field].as_f64().with_context(|| format!("no {field} was measured"))
}
