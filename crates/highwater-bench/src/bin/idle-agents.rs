//! What agents cost that have nothing to do: `cargo run --package highwater-bench --bin idle-agents -- [AGENTS]
//! [SECONDS]`. Prints what [`measure`] has found as JSON.
#![allow(clippy::print_stdout, reason = "a program that prints a measurement")]

use highwater_bench::idle::measure;
use highwater_bench::{Outcome, number};

fn main() -> Outcome<()> {
    println!("{}", measure(number(1, 50)?, number(2, 30)?)?);
    Ok(())
}
