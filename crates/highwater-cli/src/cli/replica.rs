//! Arguments of `replica`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use highwater::ids::NodeName;
use serde::Deserialize;

use super::{KeyArgs, ReplicaMigrateArgs};
use crate::values;

/// What is done with a replica.
#[derive(Subcommand, Debug)]
pub(crate) enum ReplicaCommand {
    /// Show who holds the store on the server, and what waits here
    Status(ReplicaStatusArgs),
    /// Send what waits, and give the store up; the node must not run
    Flush(ReplicaFlushArgs),
    /// Fill a new database from the server, or with --vault a node directory, and become the owner
    ///
    /// It appears once all of it was read and verified, or not at all. A restore that was interrupted goes
    /// on when it is asked for again. With --vault the files come from the snapshot of the same store that
    /// is nearest to the server's last write, and what is not of one instant is reported.
    Restore(Box<ReplicaRestoreArgs>),
    /// Fill a new database from a store that ldk-node has written to a server by itself
    ///
    /// The node must not run, and must never run on the old store again; nothing is written there. The
    /// database appears once all of it was read and verified, or not at all.
    Migrate(ReplicaMigrateArgs),
    /// Show, give up or take over the right to write
    #[command(subcommand)]
    Owner(ReplicaOwnerCommand),
}

/// The right to write.
#[derive(Subcommand, Debug)]
pub(crate) enum ReplicaOwnerCommand {
    /// Show who has it
    Show(ReplicaArgs),
    /// Send what waits, and give it up
    Release(ReplicaFlushArgs),
    /// Fill a new database from the server, and take it from who has it
    ///
    /// That one fails at its next write.
    TakeOver(Box<ReplicaTakeOverArgs>),
}

/// A server, a store on it, and the keys.
#[derive(Args, Debug)]
pub(crate) struct ReplicaArgs {
    /// The server: https://HOST/vss
    #[arg(long, value_name = "URL")]
    pub(crate) server: String,
    /// The store's id
    #[arg(long, value_name = "ID", default_value = "highwater")]
    pub(crate) store: String,
    /// How we show the server who we are
    #[arg(long, value_name = "HOW", default_value = "signature")]
    pub(crate) auth: ReplicaAuth,
    /// File with a token, mode 0600, for --auth token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates, as PEM, that the server's must stand on, instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allow http:// to another machine
    #[arg(long)]
    pub(crate) allow_http: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

/// How we show the server who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplicaAuth {
    /// By a signature with a key that comes from the same secret as all others
    Signature,
    /// By a JSON Web Token
    Token,
    /// Not at all
    None,
}

/// Arguments of `replica status`.
#[derive(Args, Debug)]
pub(crate) struct ReplicaStatusArgs {
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
    /// The node's database, to see what waits
    #[arg(long, value_name = "FILE")]
    pub(crate) local: Option<PathBuf>,
}

/// Arguments of `replica flush` and `replica owner release`.
#[derive(Args, Debug)]
pub(crate) struct ReplicaFlushArgs {
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
    /// The node's database
    #[arg(long, value_name = "FILE")]
    pub(crate) local: PathBuf,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = values::duration)]
    pub(crate) timeout: Duration,
    /// Write over a server that was set back: it has less than it has acknowledged to this database
    #[arg(long)]
    pub(crate) accept_older_server: bool,
}

/// Arguments of `replica restore`.
#[derive(Args, Debug)]
pub(crate) struct ReplicaRestoreArgs {
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
    /// The database that is made; with --vault, the node directory
    #[arg(value_name = "FILE|NODE_DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) files: FilesOfVaultArgs,
    /// Make an empty one where the server has nothing
    #[arg(long)]
    pub(crate) allow_empty_restore: bool,
    /// Take what is there where it is not one instant of its owner's store; with --vault, also files that
    /// have seen more than the server has
    #[arg(long)]
    pub(crate) accept_inconsistent_restore: bool,
    /// Hand over a store of the Lightning Development Kit although loading it may close channels
    #[arg(long)]
    pub(crate) accept_closing_channels: bool,
}

/// Where the files of a node directory come from.
#[derive(Args, Debug)]
pub(crate) struct FilesOfVaultArgs {
    /// Make a node directory: its files from this vault
    #[arg(long, value_name = "VAULT")]
    pub(crate) vault: Option<String>,
    /// The vault's own key file, where the secret of the store does not open it
    #[arg(long, value_name = "FILE", requires = "vault")]
    pub(crate) vault_key_file: Option<PathBuf>,
    /// The vault's own passphrase file
    #[arg(long, value_name = "FILE", requires = "vault", conflicts_with = "vault_key_file")]
    pub(crate) vault_passphrase_file: Option<PathBuf>,
    /// The vault's own mnemonic file
    #[arg(long, value_name = "FILE", requires = "vault",
          conflicts_with_all = ["vault_key_file", "vault_passphrase_file"])]
    pub(crate) vault_mnemonic_file: Option<PathBuf>,
    /// Snapshots of this node alone
    #[arg(long, value_name = "NAME", requires = "vault")]
    pub(crate) node: Option<NodeName>,
    /// This snapshot: an id, a unique prefix of one, or `latest`; else the one that fits best
    #[arg(long, value_name = "SNAPSHOT", requires = "vault")]
    pub(crate) snapshot: Option<String>,
    /// Replace a directory that holds something; it is kept for `rollback`
    #[arg(long, requires = "vault")]
    pub(crate) force: bool,
    /// Owner and group of all that is restored, as numbers
    #[arg(long, value_name = "UID:GID", value_parser = values::owner, requires = "vault")]
    pub(crate) owner: Option<(u32, u32)>,
    /// Where no snapshot fits: a directory with the database alone, by this name
    #[arg(long, value_name = "FILE", requires = "vault", conflicts_with = "snapshot")]
    pub(crate) keys_only: Option<String>,
    /// The node that was backed up runs nowhere and never will again, and how that is known: recorded
    #[arg(long, value_name = "TEXT", requires = "vault",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) original_gone: Option<String>,
}

/// Arguments of `replica owner take-over`.
#[derive(Args, Debug)]
pub(crate) struct ReplicaTakeOverArgs {
    #[command(flatten)]
    pub(crate) restore: ReplicaRestoreArgs,
    /// Why; stands in the head, for who had it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}
