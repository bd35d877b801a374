//! `cargo xtask ratios`: processor time of backups, checks and restores beside that of `tar` and `zstd` on the same
//! bytes, in turn, as `make test` runs it: with the program that the tests use. Fails where a ratio is far above what
//! was measured when its bound was set; the machine does not matter, nor does what else runs on it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::data::{Kind, Node, run as run_silently};
use super::measure::median;
use super::tools::{Place, Tool, What, quoted};

/// Megabytes of each shape.
const SIZE_MB: &str = "60";
/// What is measured of each shape, with the highest ratio that is no loss: up to twice as much as when it was set, since
/// hashes take twice as long on processors with shorter vectors.
const BOUNDS: [(&str, [(Pair, f64); 4]); 3] = [
    ("accounts", bounds(2.5, 0.4, 2.8, 1.8)),
    ("transactions", bounds(2.7, 0.1, 2.3, 1.2)),
    ("settings", bounds(3.8, 1.0, 14.0, 3.0)),
];
/// A round that is disturbed says nothing: so many are made at most, two at least, and the best one counts.
const ROUNDS_MIN: usize = 2;
const ROUNDS_MAX: usize = 8;

const fn bounds(full: f64, unchanged: f64, check: f64, restore: f64) -> [(Pair, f64); 4] {
    [
        (Pair::Full, full),
        (Pair::Unchanged, unchanged),
        (Pair::Check, check),
        (Pair::Restore, restore),
    ]
}

/// A command of ours, and what its processor time is divided by.
#[derive(Clone, Copy, Debug)]
enum Pair {
    /// `tar -c | zstd -1`.
    Full,
    /// Our own full backup.
    Unchanged,
    /// `zstd --test`.
    Check,
    /// `zstd -d | tar -x`.
    Restore,
}

impl Pair {
    fn title(self) -> &'static str {
        match self {
            Pair::Full => "full backup to `tar | zstd -1`",
            Pair::Unchanged => "unchanged to full backup",
            Pair::Check => "check of every byte to `zstd --test`",
            Pair::Restore => "restore to `zstd -d | tar -x`",
        }
    }
}

/// Measures, prints a table, and fails where a bound is broken. What the tests are built into is beside this program.
pub(crate) fn run() -> Result<()> {
    let built = std::env::current_exe()?.parent().context("a directory")?.to_path_buf();
    let scratch = tempfile::tempdir()?;
    let shapes = scratch.path().join("shapes");
    run_silently(Command::new(built.join("shapes")).arg(&shapes).arg(SIZE_MB))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "| processor time | least | middle | most that is allowed |\n|---|---|---|---|")?;
    let mut lost = Vec::new();
    for (shape, bounds) in BOUNDS {
        let node = Node { kind: Kind::Raw, dir: shapes.join(shape) };
        let mut rounds: [Vec<f64>; 4] = Default::default();
        while rounds[0].len() < ROUNDS_MAX {
            let round = round(&node, &built.join("highwater"), scratch.path())?;
            for (all, ratio) in rounds.iter_mut().zip(round) {
                all.push(ratio);
            }
            let holds = bounds.iter().zip(&rounds).all(|((_, most), all)| least(all) <= *most);
            if holds && rounds[0].len() >= ROUNDS_MIN {
                break;
            }
        }
        for ((pair, most), all) in bounds.into_iter().zip(rounds) {
            let name = format!("{shape}: {}", pair.title());
            let best = least(&all);
            writeln!(out, "| {name} | {best:.2} | {:.2} | {most} |", median(all))?;
            if best > most {
                lost.push(name);
            }
        }
    }
    ensure!(lost.is_empty(), "more processor time than is allowed: {}", lost.join("; "));
    Ok(())
}

fn least(ratios: &[f64]) -> f64 {
    ratios.iter().copied().fold(f64::INFINITY, f64::min)
}

/// One ratio of each pair.
fn round(node: &Node, program: &Path, scratch: &Path) -> Result<[f64; 4]> {
    let place = Place::make(&scratch.join("place"), program)?;
    let steps = Tool::Highwater.steps(node, &place)?;
    let own = |what| -> Result<f64> {
        let step = steps.iter().find(|step| step.what == what).context("no such step")?;
        busy(&step.command, &place)
    };
    let (source, packed) = (quoted(&node.dir), quoted(&place.dir().join("packed")));
    let out = quoted(&place.dir().join("unpacked"));
    let peer = |command: String| busy(&command, &place);
    let packing = peer(format!("tar -C {source} -c . | zstd -q -1 -T1 -o {packed}"))?;
    let full = own(What::Full)?;
    let unchanged = own(What::Unchanged)?;
    let (check, test) = (own(What::Check)?, peer(format!("zstd -q --test {packed}"))?);
    let unpacking = peer(format!("mkdir {out}; zstd -q -d -c {packed} | tar -C {out} -x"))?;
    let restore = own(What::Restore)?;
    place.remove()?;
    Ok([full / packing, unchanged / full, check / test, restore / unpacking])
}

/// Seconds of the processor that a shell command takes, by the shell's own clock.
fn busy(command: &str, place: &Place) -> Result<f64> {
    let told: PathBuf = place.dir().join("told");
    let timed = format!(
        "set -euo pipefail; TIMEFORMAT='%U %S'; time {{ {command}; }} > {out} 2> {out}",
        out = quoted(&told)
    );
    let output = Command::new("bash").args(["-c", &timed]).envs(place.environment()).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("`{command}` failed: {}", std::fs::read_to_string(told).unwrap_or(text));
    }
    let seconds: Vec<f64> =
        text.split_whitespace().map(|number| Ok(number.parse()?)).collect::<Result<_>>()?;
    Ok(seconds.iter().sum::<f64>().max(0.001))
}
