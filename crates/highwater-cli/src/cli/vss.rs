//! Arguments of `vss`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;

/// What is done with a versioned store.
#[derive(Subcommand, Debug)]
pub(crate) enum VssCommand {
    /// Serve stores to nodes: what LDK's clients call a VSS server
    ///
    /// SQLite keeps them, unless PostgreSQL is named; several servers may share one PostgreSQL database.
    /// A write is on the disk before it is answered. SIGTERM lets requests end.
    Serve(VssServeArgs),
    /// List the commits of a store, or bring one back
    #[command(subcommand)]
    History(VssHistoryCommand),
    /// Show what holds for a store, or change it
    ///
    /// Owners can fence a store and have its history kept; only here is that turned off again.
    Policy(VssPolicyArgs),
    /// Count stores, keys and bytes
    Stats(VssStatsArgs),
}

/// Where stores are kept.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct VssDatabaseArgs {
    /// Directory of a SQLite database, made where it is missing [default: `data_dir` under [vss]]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// PostgreSQL: postgres://USER@HOST:PORT/DATABASE [env: HIGHWATER_POSTGRES]
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
}

/// Arguments of `vss serve`.
#[derive(Args, Debug)]
pub(crate) struct VssServeArgs {
    #[command(flatten)]
    pub(crate) database: VssDatabaseArgs,
    /// Where it listens; other than on loopback it needs TLS [default: 127.0.0.1:9737]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// How clients show who they are [default: signature]
    #[arg(long, value_name = "HOW")]
    pub(crate) auth: Option<VssAuth>,
    /// RSA public key as PEM that tokens are verified with, for --auth jwt
    #[arg(long, value_name = "FILE")]
    pub(crate) jwt_key: Option<PathBuf>,
    /// Certificate chain as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Serve other addresses than loopback without TLS: something in front has it
    #[arg(long)]
    pub(crate) allow_http: bool,
    /// File of tokens that show /metrics; without it they are shown on loopback alone
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Bytes of the largest put [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_request: Option<u64>,
    /// Tell of every request, not of failures alone; never of keys or values
    #[arg(long)]
    pub(crate) log_requests: bool,
}

/// How clients show who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VssAuth {
    /// By a signature with a key of their own, which is who they are
    Signature,
    /// By JSON Web Tokens (RS256) whose `sub` is who they are
    Jwt,
    /// Not at all: on loopback, for development
    None,
}

/// A store.
#[derive(Args, Debug)]
pub(crate) struct VssStoreArgs {
    #[command(flatten)]
    pub(crate) database: VssDatabaseArgs,
    /// Whose it is: a key in hex, the `sub` of a token, or `anybody` where nobody was asked
    #[arg(long, value_name = "USER")]
    pub(crate) user: String,
    /// Its id; may be empty
    #[arg(long, value_name = "ID")]
    pub(crate) store: String,
}

/// What is done with the history of a store.
#[derive(Subcommand, Debug)]
pub(crate) enum VssHistoryCommand {
    /// List commits, newest first
    List(VssHistoryListArgs),
    /// Bring back what a commit held, as a new commit with higher versions
    ///
    /// A client that goes on with versions of before is refused, and has to read anew. The restore can
    /// be undone by another one.
    Restore(VssHistoryRestoreArgs),
}

/// Arguments of `vss history list`.
#[derive(Args, Debug)]
pub(crate) struct VssHistoryListArgs {
    #[command(flatten)]
    pub(crate) store: VssStoreArgs,
    /// Only commits below this one
    #[arg(long, value_name = "COMMIT")]
    pub(crate) below: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
}

/// Arguments of `vss history restore`.
#[derive(Args, Debug)]
pub(crate) struct VssHistoryRestoreArgs {
    #[command(flatten)]
    pub(crate) store: VssStoreArgs,
    /// The commit
    #[arg(value_name = "COMMIT")]
    pub(crate) commit: u64,
}

/// Arguments of `vss policy`.
#[derive(Args, Debug)]
pub(crate) struct VssPolicyArgs {
    #[command(flatten)]
    pub(crate) database: VssDatabaseArgs,
    /// Whose store or quota it is: a key in hex, the `sub` of a token, or `anybody` where nobody was asked
    #[arg(long, value_name = "USER", required_unless_present = "everybody")]
    pub(crate) user: Option<String>,
    /// The quota of all users who have none of their own
    #[arg(long, conflicts_with_all = ["user", "store"])]
    pub(crate) everybody: bool,
    /// The store's id; may be empty
    #[arg(long, value_name = "ID")]
    pub(crate) store: Option<String>,
    /// The user, or the store, is not there yet
    #[arg(long, conflicts_with = "everybody")]
    pub(crate) new: bool,
    /// Whether each put must be conditional on the store's head
    #[arg(long, value_name = "on|off", value_parser = on_or_off, requires = "store")]
    pub(crate) fence: Option<bool>,
    /// Keep this many old values of each key, and those that `--keep-days` names
    #[arg(long, value_name = "N", requires_all = ["keep_days", "store"])]
    pub(crate) keep_versions: Option<u32>,
    /// Keep the old values that were replaced within this many days, and those that `--keep-versions` names
    #[arg(long, value_name = "N", requires = "keep_versions")]
    pub(crate) keep_days: Option<u32>,
    /// Keep no history, and delete what was kept
    #[arg(long, conflicts_with_all = ["keep_versions", "keep_days"], requires = "store")]
    pub(crate) no_history: bool,
    /// Bytes of keys and values that the user may keep, old values among them
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,
    /// Keys that the user may keep
    #[arg(long, value_name = "N")]
    pub(crate) max_keys: Option<u64>,
    /// Stores that the user may keep
    #[arg(long, value_name = "N")]
    pub(crate) max_stores: Option<u64>,
    /// No quota; for a user, that of everybody
    #[arg(long, conflicts_with_all = ["max_bytes", "max_keys", "max_stores"])]
    pub(crate) no_quota: bool,
}

fn on_or_off(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off"),
    }
}

/// Arguments of `vss stats`.
#[derive(Args, Debug)]
pub(crate) struct VssStatsArgs {
    #[command(flatten)]
    pub(crate) database: VssDatabaseArgs,
    /// Count each store too, at most this many
    #[arg(long, value_name = "N")]
    pub(crate) stores: Option<u32>,
    /// Count each user too, beside the user's quota, at most this many
    #[arg(long, value_name = "N")]
    pub(crate) users: Option<u32>,
}
