//! A vault in an S3 server on loopback, beside a local one and beside what the server itself can do.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Options;
use super::data::{Node, run};
use super::measure::{self, Running, Samples};
use super::report::figure;
use super::tools::{Place, Tool, What, quoted};

/// Key and secret of the server.
const CREDENTIAL: &str = "bench";
/// Objects that are put to find out what the server can do, the size of each in MB, and how many are on
/// their way at once: about what a backup does.
const PUTS: u64 = 128;
const PUT_MB: u64 = 8;
const PUTS_AT_ONCE: u64 = 4;
/// How often a server that starts is asked whether it listens.
const TRIES_MAX: u32 = 200;

/// A server that keeps objects on disk, ended when it is dropped.
struct Server {
    _process: Running,
    port: u16,
}

impl Server {
    fn start(program: &Path, root: &Path) -> Result<Server> {
        std::fs::create_dir_all(root.join("vault"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--access-key", CREDENTIAL, "--secret-key", CREDENTIAL])
            .arg(root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let server = Server { _process: Running(process), port };
        for _ in 0..TRIES_MAX {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(server);
            }
            run(Command::new("sleep").arg("0.05"))?;
        }
        bail!("the S3 server does not listen")
    }
}

/// Where `scripts/setup s3s-fs` puts the server; `None` where it has not.
pub(super) fn program() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let program = cache.join("highwater/store-servers/s3s-fs/bin/s3s-fs");
    program.exists().then_some(program)
}

/// A full backup, a check and a restore of each node, with the vault in the server.
pub(super) fn run_all(options: &Options, server: &Path, local: &[Samples]) -> Result<String> {
    let mut text = String::from(
        "| node | full backup to S3, s | to local | MB/s stored | the server alone, MB/s | peak, MiB | check, s | restore, s |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (place, &kind) in options.sets.iter().enumerate() {
        let local = local.get(place);
        let node = Node::make(&options.dir, kind, options.size_mb)?;
        let mut all = Samples::default();
        let mut limits = Vec::new();
        for _ in 0..options.repeat {
            let place = Place::make(&options.dir.join("place"), &options.program)?;
            let root = place.dir().join("vault");
            let server = Server::start(server, &root)?;
            limits.push(limit(&server, &place)?);
            measure_vault(&node, &server, &place, &mut all)?;
            drop(server);
            all.add_stored(Tool::Highwater, place.stored_mb()?);
            place.remove()?;
        }
        let median = |what| all.median(Tool::Highwater, what);
        let full = median(What::Full).context("a full backup was measured")?;
        let stored = all.stored_mb(Tool::Highwater).unwrap_or_default();
        let beside = local
            .and_then(|local| local.median(Tool::Highwater, What::Full))
            .map(|own| full.seconds / own.seconds);
        writeln!(
            text,
            "| {} | {:.2} | {} | {:.0} | {:.0} | {:.0} | {} | {} |",
            kind.describe(),
            full.seconds,
            figure(beside, 2),
            stored / full.seconds,
            measure::median(limits),
            full.peak_mib,
            figure(median(What::Check).map(|sample| sample.seconds), 2),
            figure(median(What::Restore).map(|sample| sample.seconds), 2),
        )?;
    }
    Ok(text)
}

fn measure_vault(node: &Node, server: &Server, place: &Place, all: &mut Samples) -> Result<()> {
    let program = quoted(place.program());
    let access = format!(
        "export AWS_ACCESS_KEY_ID={CREDENTIAL} AWS_SECRET_ACCESS_KEY={CREDENTIAL} \
         AWS_REGION=us-east-1 AWS_ENDPOINT=http://127.0.0.1:{} AWS_ALLOW_HTTP=true \
         HIGHWATER_VAULT=s3://vault/bench;",
        server.port
    );
    // Its conditional puts race, which the probe finds out.
    place.prepare(&format!(
        "{access} {program} init s3://vault/bench --unfenced --no-recovery-slot --json"
    ))?;
    let (source, out) = (quoted(&node.dir), quoted(place.dir()));
    for (what, command) in [
        (What::Full, format!("backup {source} --node node --json")),
        (What::Check, "check --read-data --json".to_owned()),
        (What::Restore, format!("restore latest {out}/back --json")),
    ] {
        node.warm()?;
        let sample = measure::run(&format!("{access} {program} {command}"), place)?;
        all.add(Tool::Highwater, what, sample);
    }
    Ok(())
}

/// MB a second that the server takes from several uploads at once.
fn limit(server: &Server, place: &Place) -> Result<f64> {
    let out = quoted(place.dir());
    place.prepare(&format!("head --bytes={PUT_MB}000000 /dev/urandom > {out}/object"))?;
    let puts: String = (0..PUTS)
        .map(|n| {
            format!(" --upload-file {out}/object http://127.0.0.1:{}/vault/limit-{n}", server.port)
        })
        .collect();
    let command = format!(
        "curl --silent --fail --user {CREDENTIAL}:{CREDENTIAL} --aws-sigv4 aws:amz:us-east-1:s3 \
         --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
         --parallel --parallel-max {PUTS_AT_ONCE}{puts}"
    );
    let sample = measure::run(&command, place)?;
    place.prepare(&format!("rm {out}/vault/vault/limit-* {out}/object"))?;
    Ok((PUTS * PUT_MB) as f64 / sample.seconds)
}
