//! Arguments of `replica`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
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
    /// Fill a new database from the server, and become the owner
    ///
    /// It appears once all of it was read and verified, or not at all. A restore that was interrupted goes
    /// on when it is asked for again.
    Restore(ReplicaRestoreArgs),
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
    TakeOver(ReplicaTakeOverArgs),
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
    /// The database that is made
    #[arg(value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Make an empty one where the server has nothing
    #[arg(long)]
    pub(crate) allow_empty_restore: bool,
    /// Take what is there where it is no one instant of its owner's store
    #[arg(long)]
    pub(crate) accept_inconsistent_restore: bool,
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
