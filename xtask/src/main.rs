//! `cargo xtask tidy`: the checks of the tree that no compiler makes. `cargo xtask site`: the documents, laid
//! out for mdBook. `cargo xtask bench`: figures. `cargo xtask ratios`: those that `make test` looks at.

mod bench;
mod site;
mod tidy;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy(),
        ["ratios"] => bench::ratios::run().map(|()| ExitCode::SUCCESS),
        ["bench", ..] => bench::run(&args[1..]).map(|()| ExitCode::SUCCESS),
        ["site", dir] => {
            let root = root()?;
            let tree = tidy::Tree::read(&root)?;
            site::write(&tree, &root, Path::new(dir)).map(|()| ExitCode::SUCCESS)
        }
        _ => bail!("usage: cargo xtask tidy | site DIR | bench | ratios"),
    }
}

/// The root of the tree.
fn root() -> Result<PathBuf> {
    // Asked when it runs: worktrees that share a target directory share this program.
    let home = std::env::var_os("CARGO_MANIFEST_DIR").context("run it as `cargo xtask`")?;
    Ok(Path::new(&home).parent().context("xtask has a parent")?.to_path_buf())
}

fn tidy() -> Result<ExitCode> {
    let tree = tidy::Tree::read(&root()?)?;
    let (problems, counts) = tidy::run(&tree);
    let mut out = std::io::stdout().lock();
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    writeln!(out, "tidy: {counts}; {} problems", problems.len())?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
