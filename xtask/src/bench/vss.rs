//! The server of stores beside the one that the clients' makers publish: puts, pages, memory. One run, one
//! machine, one PostgreSQL.

mod list;
mod load;
mod message;
mod server;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use load::{Load, Outcome};
use message::Shape;
use server::{Postgres, Server, Which, World};

/// What is measured.
pub(super) struct Options {
    servers: Vec<Which>,
    /// Of each load; 0: none is measured.
    time: Duration,
    /// Of the store that is listed; 0: none is.
    keys: u64,
    /// Of the load under which memory is looked at; 0: it is not.
    minutes: u64,
    dir: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            servers: vec![Which::Sqlite, Which::Postgres, Which::Upstream],
            time: Duration::from_secs(10),
            keys: 1_000_000,
            minutes: 2,
            // PostgreSQL does not run as root, and other users can't reach into root's home.
            dir: std::env::temp_dir(),
        }
    }
}

impl Options {
    /// Takes a flag; whether it is one of these.
    pub(super) fn take(&mut self, flag: &str, value: &str) -> Result<bool> {
        match flag {
            "--vss-servers" => self.servers = value.split(',').map(which).collect::<Result<_>>()?,
            "--vss-seconds" => self.time = Duration::from_secs(value.parse()?),
            "--vss-keys" => self.keys = value.parse()?,
            "--vss-minutes" => self.minutes = value.parse()?,
            "--vss-dir" => self.dir = std::path::absolute(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The processor before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Bytes of a value.
const VALUE_BYTES: usize = 1 << 10;
/// Keys of each client, which it writes again and again.
const KEYS: u64 = 1000;
/// Clients at once where many are meant, and where each put is large.
const MANY: usize = 64;
const SOME: usize = 8;
/// The load that all are given alike, as a share of what the slowest takes.
const SHARE: f64 = 0.5;
/// Looks at the memory, spread over the load.
const LOOKS: u64 = 10;

const ONE: Shape =
    Shape { items: 1, value_bytes: VALUE_BYTES, keys: KEYS, own_stores: false, name: "one" };

/// A load, by its name in the tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    Alone,
    Many,
    Stores,
    BatchAlone,
    Batches,
    Given,
}

impl Case {
    const FULL: [Case; 5] =
        [Case::Alone, Case::Many, Case::Stores, Case::BatchAlone, Case::Batches];

    fn title(self) -> &'static str {
        match self {
            Case::Alone => "1 client",
            Case::Many => "64 clients, one store",
            Case::Stores => "64 clients, a store each",
            Case::BatchAlone => "1 client, puts of 100 items",
            Case::Batches => "8 clients, puts of 100 items",
            Case::Given => "64 clients at a given load",
        }
    }

    fn clients(self) -> usize {
        match self {
            Case::Alone | Case::BatchAlone => 1,
            Case::Batches => SOME,
            Case::Many | Case::Stores | Case::Given => MANY,
        }
    }

    fn shape(self) -> Shape {
        match self {
            Case::Alone => Shape { name: "alone", ..ONE },
            Case::Many | Case::Given => ONE,
            Case::Stores => Shape { own_stores: true, name: "own", ..ONE },
            Case::BatchAlone => Shape { items: 100, name: "batch", ..ONE },
            Case::Batches => Shape { items: 100, name: "batches", ..ONE },
        }
    }
}

/// What a load did, and how many cores server and database took.
#[derive(Clone, Debug)]
struct Figures {
    outcome: Outcome,
    server: f64,
    database: f64,
}

type All = BTreeMap<(Case, Which), Vec<Figures>>;

/// Runs it all, and prints tables.
pub(super) fn run(all: &super::Options, out: &mut impl std::io::Write) -> Result<()> {
    let options = &all.vss;
    // Two runs at once are wrong figures, and must be no more than that.
    let dir = options.dir.join(format!("highwater-bench-vss-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let upstream = match options.servers.contains(&Which::Upstream) {
        true => Some(upstream()?),
        false => None,
    };
    let postgres = match options.servers.iter().any(|which| *which != Which::Sqlite) {
        true => Some(Postgres::start(&dir)?),
        false => None,
    };
    let world = World {
        dir: &dir,
        program: &all.program,
        upstream: upstream.as_deref(),
        postgres: postgres.as_ref(),
    };
    writeln!(out, "### The server of stores\n")?;
    if let Some(postgres) = &postgres {
        writeln!(out, "{}, with the settings that it comes with.\n", postgres.version()?)?;
    }
    if !options.time.is_zero() {
        let (figures, pace) = puts(options, all.repeat, &world)?;
        writeln!(out, "{}", table(options, all.repeat, &figures, pace)?)?;
        writeln!(out, "{}", rounds(&figures)?)?;
        if let Some(postgres) = &postgres {
            let rate = postgres.limit(options.time)?;
            writeln!(
                out,
                "PostgreSQL alone, one connection: {rate:.0} transactions a second, each of which updates a \
                 hundred rows by one statement.\n"
            )?;
        }
        out.flush()?;
    }
    if options.keys > 0 {
        writeln!(out, "{}", list::run(&options.servers, options.keys, &world)?)?;
        out.flush()?;
    }
    if options.minutes > 0 {
        writeln!(out, "{}", memory(options, &world)?)?;
    }
    drop(postgres);
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// Every load on every server, and the load that was given to all alike.
fn puts(options: &Options, repeat: usize, world: &World<'_>) -> Result<(All, f64)> {
    let mut all = All::new();
    for round in 0..repeat {
        for &which in &options.servers {
            super::eprint_line(&format!("{}, round {}", which.title(), round + 1))?;
            let server = Server::start(which, world)?;
            for case in Case::FULL {
                let found = measure(&server, world, options, case, None)?;
                all.entry((case, which)).or_default().push(found);
            }
        }
    }
    let slowest = options.servers.iter().filter_map(|&which| {
        middle(all.get(&(Case::Many, which))?, |figures| figures.outcome.requests)
    });
    let pace = (slowest.fold(f64::INFINITY, f64::min) * SHARE).floor();
    for _ in 0..repeat {
        for &which in &options.servers {
            let server = Server::start(which, world)?;
            let found = measure(&server, world, options, Case::Given, Some(pace))?;
            all.entry((Case::Given, which)).or_default().push(found);
        }
    }
    Ok((all, pace))
}

fn measure(
    server: &Server,
    world: &World<'_>,
    options: &Options,
    case: Case,
    pace: Option<f64>,
) -> Result<Figures> {
    let load = Load {
        clients: case.clients(),
        shape: case.shape(),
        pace,
        warm_up: WARM_UP,
        time: options.time,
    };
    if let Some(postgres) = world.postgres {
        postgres.checkpoint()?;
    }
    let busy = || -> Result<(f64, f64)> {
        Ok((server.busy()?, world.postgres.map_or(Ok(0.0), Postgres::busy)?))
    };
    let before = busy()?;
    let outcome = load.run(server.address).with_context(|| case.title().to_owned())?;
    let after = busy()?;
    let seconds = (options.time + WARM_UP).as_secs_f64();
    Ok(Figures {
        outcome,
        server: (after.0 - before.0) / seconds,
        database: (after.1 - before.1).max(0.0) / seconds,
    })
}

fn middle(all: &[Figures], figure: impl Fn(&Figures) -> f64) -> Option<f64> {
    let mut figures: Vec<f64> = all.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

fn table(options: &Options, repeat: usize, all: &All, pace: f64) -> Result<String> {
    let mut text = format!(
        "Values of 1 KiB, {} rounds of {} s, medians; the given load is {pace:.0} puts/s. Of the processor's \
         time, what server and database take for an item, and the cores that the load itself takes.\n\n\
         | load | server | puts/s | items/s | to vss-server | p50, ms | p99, ms | server, µs | database, µs | load |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        repeat,
        options.time.as_secs()
    );
    for ((case, which), figures) in all {
        let of = |figure: fn(&Figures) -> f64| middle(figures, figure).unwrap_or_default();
        let rate = of(|figures| figures.outcome.requests);
        let items = rate * case.shape().items as f64;
        let other = all
            .get(&(*case, Which::Upstream))
            .and_then(|figures| middle(figures, |figures| figures.outcome.requests));
        writeln!(
            text,
            "| {} | {} | {rate:.0} | {:.0} | {} | {:.2} | {:.2} | {:.0} | {:.0} | {:.2} |",
            case.title(),
            which.title(),
            items,
            super::report::figure(other.map(|other| rate / other), 1),
            of(|figures| figures.outcome.p50),
            of(|figures| figures.outcome.p99),
            of(|figures| figures.server) / items * 1e6,
            of(|figures| figures.database) / items * 1e6,
            of(|figures| figures.outcome.busy),
        )?;
    }
    Ok(text)
}

/// What the slowest of a hundred waited for in each round of the load that all are given.
fn rounds(all: &All) -> Result<String> {
    let mut text =
        "At the given load, p99 of each round, ms:\n\n| server | p99 |\n|---|---|\n".to_owned();
    for ((case, which), figures) in all {
        if *case == Case::Given {
            let rounds = figures.iter().map(|round| format!("{:.2}", round.outcome.p99));
            writeln!(text, "| {} | {} |", which.title(), rounds.collect::<Vec<_>>().join(", "))?;
        }
    }
    Ok(text)
}

/// Memory of each server over some minutes of load.
fn memory(options: &Options, world: &World<'_>) -> Result<String> {
    let mut text = format!(
        "Resident memory of the server in MiB, over {} minutes of 64 clients that put 1 KiB.\n\n\
         | server | puts | at the start | after a tenth | half way | at the end | peak |\n|---|---|---|---|---|---|---|\n",
        options.minutes
    );
    for &which in &options.servers {
        super::eprint_line(&format!("{}, memory", which.title()))?;
        let server = Server::start(which, world)?;
        let mut looks = vec![server.memory()?.0];
        let time = Duration::from_secs(options.minutes * 60) / u32::try_from(LOOKS)?;
        let load = Load { clients: MANY, shape: ONE, pace: None, warm_up: Duration::ZERO, time };
        let mut puts = 0.0;
        for _ in 0..LOOKS {
            puts += load.run(server.address)?.requests * time.as_secs_f64();
            looks.push(server.memory()?.0);
        }
        let (_, peak) = server.memory()?;
        let at = |place: usize| looks.get(place).copied().unwrap_or_default();
        writeln!(
            text,
            "| {} | {puts:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {peak:.0} |",
            which.title(),
            at(0),
            at(1),
            at(looks.len() / 2),
            at(looks.len() - 1)
        )?;
    }
    Ok(text)
}

/// Ours, on SQLite, below a directory.
pub(super) fn sqlite_server(dir: &Path, program: &Path) -> Result<Server> {
    Server::start(Which::Sqlite, &World { dir, program, upstream: None, postgres: None })
}

/// The server that is compared with, built where it is not there yet.
fn upstream() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/vss-upstream");
    let output = Command::new(script).stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("scripts/vss-upstream failed");
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

fn which(name: &str) -> Result<Which> {
    Ok(match name {
        "sqlite" => Which::Sqlite,
        "postgres" => Which::Postgres,
        "upstream" => Which::Upstream,
        _ => bail!("{name} is no server: there are sqlite, postgres and upstream"),
    })
}
