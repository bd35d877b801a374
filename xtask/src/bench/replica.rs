//! What a replica costs a node, beside a server of stores on the same machine: writes, lag, an empty disk
//! filled over a slow link, writes that wait for the server. Measured by a program of `highwater-bench`.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::agent::{figure, printed_by};
use super::tools::Place;
use super::vss;

/// What is measured.
pub(super) struct Options {
    /// Of the store that an empty disk is filled with.
    keys: u64,
    /// Of each load.
    seconds: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { keys: 100_000, seconds: 10 }
    }
}

impl Options {
    /// Takes a flag; whether it is one of these.
    pub(super) fn take(&mut self, flag: &str, value: &str) -> Result<bool> {
        match flag {
            "--replica-keys" => self.keys = value.parse()?,
            "--replica-seconds" => self.seconds = value.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

pub(super) fn run(options: &super::Options) -> Result<String> {
    super::eprint_line("a node and its replica")?;
    let place = Place::make(&options.dir.join("place"), &options.program)?;
    let server = vss::sqlite_server(place.dir(), &options.program)?;
    let dir = place.dir().join("node");
    std::fs::create_dir_all(&dir)?;
    let numbers = [options.replica.seconds, options.repeat as u64, options.replica.keys];
    let mut arguments = vec![dir.display().to_string(), server.address.to_string()];
    arguments.extend(numbers.map(|number| number.to_string()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let measured = printed_by("replica-cost", &arguments)?;
    drop(server);
    place.remove()?;
    Ok(format!("### Replica\n\n{}\n{}", writes(&measured)?, others(&measured)?))
}

/// Local-first writes.
fn writes(measured: &Value) -> Result<String> {
    let mut text = String::from(
        "Writes of 1 KiB to a RocksDB, each synced, bare and with a replica on a server beside it.\n\n\
         | threads | bare, a second | replicated, a second | share, % |\n|---|---|---|---|\n",
    );
    for row in measured["writes"].as_array().into_iter().flatten() {
        let number = |field: &str| figure(row, field);
        writeln!(
            text,
            "| {:.0} | {:.0} | {:.0} | {:.1} |",
            number("threads")?,
            number("bare")?,
            number("replicated")?,
            number("percent")?,
        )?;
    }
    Ok(text)
}

fn others(measured: &Value) -> Result<String> {
    let (lag, first) = (&measured["lag"], &measured["remote_first"]);
    let hydration = &measured["hydration"];
    let mut text = String::from("| | p50 | p99 | most |\n|---|---|---|---|\n");
    let spread = |of: &Value| -> Result<String> {
        let (p50, p99, max) = (figure(of, "p50")?, figure(of, "p99")?, figure(of, "max")?);
        Ok(format!("| {p50:.2} | {p99:.2} | {max:.2} |"))
    };
    writeln!(
        text,
        "| lag at {:.0} writes a second, ms {}",
        figure(lag, "writes_per_second")?,
        spread(&lag["ms"])?
    )?;
    writeln!(
        text,
        "| a write that waits for the server, {:.0} threads, in round trips of {:.0} ms {}",
        figure(first, "threads")?,
        figure(first, "round_trip_ms")?,
        spread(&first["round_trips"])?
    )?;
    writeln!(
        text,
        "\nAn empty disk with {:.0} keys over that link: {:.1} s. One by one {:.1} ms each, measured on {:.0} \
         of them: {:.1} times as long.",
        figure(hydration, "keys")?,
        figure(hydration, "seconds")?,
        figure(hydration, "single_ms")?,
        figure(hydration, "read_one_by_one")?,
        figure(hydration, "times")?,
    )?;
    Ok(text)
}
