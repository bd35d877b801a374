//! The processes of `channel-node`: the one place of this crate that opens sockets and files. All that
//! decides anything is in the core; here it is fed and obeyed.

mod control;
mod home;
mod ledger;
mod lines;
mod peers;
mod recover;
mod run;
mod vault;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use highwater::ids::NodeName;
use highwater::{Control, Env, Error, Result};
use highwater_guard::Policy;
use serde::Serialize;
use serde_json::Value;

use control::NodeRequest;
use ledger::LedgerRequest;

/// A reference payment-channel node under Highwater's guard. It moves no real money.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a node directory, with a fresh identity.
    Init {
        /// The directory; it must not exist, or be empty.
        dir: PathBuf,
    },
    /// Runs a node until it is told to stop.
    Run(RunArgs),
    /// Runs the ledger that channels stand on.
    Ledger {
        /// Where it listens; the address is printed as the first line.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Tells a running node what to do; prints its answer as one JSON line.
    Ctl {
        /// Where the node listens for its operator.
        address: SocketAddr,
        #[command(subcommand)]
        request: NodeRequest,
    },
    /// Asks the ledger; prints its answer as one JSON line.
    AskLedger {
        /// Where the ledger listens.
        address: SocketAddr,
        #[command(subcommand)]
        request: LedgerRequest,
    },
    /// Restores a node directory from a vault: its channels are marked stale before they are the
    /// node's.
    Restore(RestoreArgs),
    /// Undoes the last restore of a node directory, and marks what comes back.
    Rollback {
        /// The directory.
        dir: PathBuf,
    },
    /// Brings the money home when nothing is left but a recovery kit: tells the peers that the state
    /// is lost, waits until they have closed, and prints what was paid.
    Recover(RecoverArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The node directory.
    #[arg(long)]
    dir: PathBuf,
    /// The node's name in the vault; the directory's name where it is not given.
    #[arg(long)]
    name: Option<NodeName>,
    /// Where peers connect.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the operator connects. Whoever can connect there commands the node: keep it on loopback.
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Where the ledger listens.
    #[arg(long)]
    ledger: SocketAddr,
    /// A peer that the node keeps a session with.
    #[arg(long = "peer", value_name = "NAME=ADDRESS", value_parser = named_address)]
    peers: Vec<(String, SocketAddr)>,
    /// The vault that keeps the node's backups, and its witness.
    #[arg(long, requires = "key_file")]
    vault: Option<PathBuf>,
    /// The file with the vault's key.
    #[arg(long, requires = "vault")]
    key_file: Option<PathBuf>,
    /// Whose word clears a channel that may be stale.
    #[arg(long, value_enum, default_value = "peer")]
    policy: PolicyArg,
    /// DANGER: no guard at all.
    #[cfg(feature = "unguarded")]
    #[arg(long)]
    unguarded: bool,
}

#[derive(Args, Clone)]
struct VaultArgs {
    /// The vault that keeps the node's backups, and its witness.
    #[arg(long)]
    vault: PathBuf,
    /// The file with the vault's key.
    #[arg(long)]
    key_file: PathBuf,
}

impl RunArgs {
    /// The vault, where there is one.
    fn vault(&self) -> Option<VaultArgs> {
        let (vault, key_file) = (self.vault.clone()?, self.key_file.clone()?);
        Some(VaultArgs { vault, key_file })
    }
}

#[derive(Args)]
struct RestoreArgs {
    /// The node directory.
    dir: PathBuf,
    #[command(flatten)]
    vault: VaultArgs,
    /// An id, a unique prefix of one, or `latest`.
    #[arg(long, default_value = "latest")]
    snapshot: String,
    /// The node's name in the vault.
    #[arg(long)]
    name: Option<NodeName>,
    /// Exchanges a directory that holds something.
    #[arg(long)]
    force: bool,
    /// States that no other copy of the node runs, or ever will, and why that is known. Without it,
    /// and without a witness, no peer's word clears a channel.
    #[arg(long, value_name = "REASON")]
    original_gone: Option<String>,
}

#[derive(Args)]
struct RecoverArgs {
    /// The kit.
    #[arg(long)]
    kit: PathBuf,
    /// The file with the vault's key.
    #[arg(long)]
    key_file: PathBuf,
    /// Where the ledger listens.
    #[arg(long)]
    ledger: SocketAddr,
    /// Where a peer listens now, where the kit does not know.
    #[arg(long = "peer", value_name = "ID=ADDRESS", value_parser = named_address)]
    peers: Vec<(String, SocketAddr)>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PolicyArg {
    Peer,
    Witness,
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Policy {
        match policy {
            PolicyArg::Peer => Policy::Peer,
            PolicyArg::Witness => Policy::Witness,
        }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let control = Control::new(Env::system());
    match execute(Cli::parse().command, &control) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(answer)) => match say(&answer) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let text = lines::error_document(&error).to_string();
            // Nobody is left to tell where even this fails.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(lines::exit_code(error.kind()))
        }
    }
}

fn execute(command: Command, control: &Control) -> Result<Option<Value>> {
    match command {
        Command::Init { dir } => home::init(&dir).map(Some),
        Command::Run(args) => run::run(args, control).map(|()| None),
        Command::Ledger { listen } => ledger::serve(listen, control).map(|()| None),
        Command::Ctl { address, request } => lines::ask(address, &request).map(Some),
        Command::AskLedger { address, request } => lines::ask(address, &request).map(Some),
        Command::Restore(args) => vault::restore(args, control).map(Some),
        Command::Recover(args) => recover::recover(&args, control).map(Some),
        Command::Rollback { dir } => vault::rollback(&dir, control).map(Some),
    }
}

/// One JSON line on standard output.
fn say(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::bug("an answer can't be written as JSON").with_source(error))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| Error::io("standard output", e))
}

fn named_address(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write it as NAME=ADDRESS")?;
    let address = address.parse().map_err(|_| format!("`{address}` is not an address"))?;
    Ok((name.to_owned(), address))
}
