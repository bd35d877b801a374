//! The commands and their flags.
//!
//! No flag has a default from the environment here: `settings` resolves flag, environment and file
//! in one place.

mod migrate;
mod replica;
mod vss;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use highwater::ids::{NodeName, Time};
use highwater::vault::{Effort, Level, Share};
use highwater_server::Scope;
use serde::Deserialize;

pub(crate) use migrate::ReplicaMigrateArgs;
pub(crate) use replica::{
    FilesOfVaultArgs, ReplicaArgs, ReplicaAuth, ReplicaCommand, ReplicaFlushArgs,
    ReplicaOwnerCommand, ReplicaRestoreArgs, ReplicaStatusArgs,
};
pub(crate) use vss::{
    VssAuth, VssCommand, VssDatabaseArgs, VssHistoryCommand, VssHistoryListArgs,
    VssHistoryRestoreArgs, VssPolicyArgs, VssServeArgs, VssStatsArgs, VssStoreArgs,
};

use crate::log::LogFormat;
use crate::values;

/// Disaster recovery for nodes whose state must never go back in time.
#[derive(Parser, Debug)]
#[command(name = "highwater", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Settings: flags, then HIGHWATER_* variables, then highwater.toml.\n\
    Exit codes: 0 done, 1 bug, 2 wrong call, 3 not found, 4 conflict, 5 corrupt, 6 fenced, \
    7 denied, 8 unavailable, 9 stale, 10 quarantined, 130 interrupted.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Settings file [default: highwater/highwater.toml in the user's configuration directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Log what is done to standard error; twice: each step, and how long it took
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log, in this format
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the whole circle on a generated node, in a temporary directory
    Demo,
    #[command(hide = true)]
    DemoWriter(DemoWriterArgs),
    /// Show a node's parts, who has them open, and what a backup would refuse
    Inspect(InspectArgs),
    /// Make a vault, with a recovery slot whose words are shown once
    Init(InitArgs),
    /// Back up a node directory while the node runs
    Backup(BackupArgs),
    /// List the snapshots of a vault; acknowledge that one lacks what an earlier one has
    Snapshots(SnapshotsArgs),
    /// Show one snapshot
    Show(ShowArgs),
    /// Compare two snapshots
    Diff(DiffArgs),
    /// Check a vault: manifests and sizes, every byte, or by restoring
    Check(CheckArgs),
    /// Hide snapshots that no rule keeps, or that are named; a later `prune` deletes them
    ///
    /// What no rule keeps goes. The newest snapshot of a node (by sequence, whatever a clock says),
    /// the newest that failed no restore test and the newest that passed one are always kept; so is the last
    /// one with what the newest lacks, until that is acknowledged. Named snapshots go whatever they are.
    Forget(ForgetArgs),
    /// Delete what was forgotten two days ago or longer, and packs that no snapshot needs
    Prune(PruneArgs),
    /// Restore a snapshot into a node directory, in one exchange
    Restore(RestoreArgs),
    /// Write a snapshot, or what is new since another one, as one archive
    Export(ExportArgs),
    /// Read archives into their vault, or a copy of it; made where there is none
    Import(ImportArgs),
    /// Fetch a snapshot, or what is new since another one, from a server, as one archive
    ///
    /// Without --snapshot the server makes a backup first. The file appears once all of it was
    /// received and verified, or not at all; a connection that breaks is taken up where it broke.
    Pull(PullArgs),
    /// Undo the last restore of a node directory
    Rollback(RollbackArgs),
    /// Finish an interrupted restore or rollback
    Recover(TargetArgs),
    /// Add, list or remove the key slots of a vault
    #[command(subcommand)]
    Key(KeyCommand),
    /// Show, give up or take over the right to write snapshots of a node
    #[command(subcommand)]
    Owner(OwnerCommand),
    /// Make, show or open a recovery kit: what closes the channels when every backup is gone
    #[command(subcommand)]
    Kit(KitCommand),
    /// Show the newest snapshot of each node; exit code 9 where one is too old, or lacks what an earlier
    /// one has
    Status(StatusArgs),
    /// Show what of a node directory is quarantined, and let it go on
    #[command(subcommand)]
    Guard(GuardCommand),
    /// Run a node once nothing of its directory is withheld
    ///
    /// For nodes that can't be changed. The command takes the place of this process: the same
    /// process id, signals go straight to the node, and the exit code is the node's. While a
    /// database is withheld, it waits and says for what. An interrupted restore is a conflict:
    /// `highwater recover` comes first.
    ///
    /// A node that embeds the guard is not held back by quarantined channels: it judges them itself,
    /// with its witness and its peers, and can't do so before it runs.
    Run(RunArgs),
    /// Keep nodes backed up: schedule, restore tests, RPC, metrics, dashboard
    ///
    /// For nodes that can't be changed: SQLite is captured live, other databases by a freeze or while
    /// nobody has them open. What it keeps is named by [[node]] tables of the settings file. SIGHUP
    /// reads that again; SIGTERM cancels what runs, and ends it.
    Serve(ServeArgs),
    /// Make, list or remove the tokens that callers of the agent need
    #[command(subcommand)]
    Token(TokenCommand),
    /// Serve versioned stores to nodes, and administer them
    #[command(subcommand)]
    Vss(VssCommand),
    /// Look after a node's key-value store that is kept on a VSS server, write by write
    #[command(subcommand)]
    Replica(ReplicaCommand),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages into a directory
    Man(ManArgs),
}

/// The vault, and what opens it.
#[derive(Args, Debug, Default)]
pub(crate) struct VaultArgs {
    /// The vault: a directory, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    /// [env: HIGHWATER_VAULT]
    #[arg(long, value_name = "VAULT")]
    pub(crate) vault: Option<String>,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

/// What opens a vault.
#[derive(Args, Debug, Default)]
#[group(multiple = false)]
pub(crate) struct KeyArgs {
    /// File with 64 hex digits and a newline, mode 0600 [env: HIGHWATER_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// File with a passphrase [env: HIGHWATER_PASSPHRASE_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// File with the words of a BIP-39 mnemonic [env: HIGHWATER_MNEMONIC_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) mnemonic_file: Option<PathBuf>,
}

/// What belongs to a node, beyond what lies in its directory.
#[derive(Args, Debug, Default)]
pub(crate) struct FilesArgs {
    /// Leave out what matches, by its path inside the node directory
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Keep the symbolic link NAME, which leads to PATH outside the node directory, as a link;
    /// what it leads to is not captured
    #[arg(long, value_name = "NAME=PATH", value_parser = values::pair::<PathBuf>)]
    pub(crate) include: Vec<(String, PathBuf)>,
}

#[derive(Args, Debug)]
pub(crate) struct DemoWriterArgs {
    pub(crate) database: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The node's data directory
    pub(crate) node_dir: PathBuf,
    #[command(flatten)]
    pub(crate) files: FilesArgs,
}

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// The new vault: a directory that is missing or empty, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX,
    /// az://CONTAINER/PREFIX with nothing below it
    pub(crate) vault: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Make no recovery slot: without the first key the vault can't be opened
    #[arg(long)]
    pub(crate) no_recovery_slot: bool,
    /// Also in a store that was found not to keep two writers apart: for the backups of one machine,
    /// without takeover and without a witness
    #[arg(long)]
    pub(crate) unfenced: bool,
}

/// How hard what is stored is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    /// Half the processor time, and more bytes: for a fast disk of one's own
    Fast,
    /// As few bytes as tools store that take several times as long
    Balanced,
    /// Some bytes in a hundred less, for several times the processor time
    Dense,
}

impl From<Compression> for Effort {
    fn from(compression: Compression) -> Effort {
        match compression {
            Compression::Fast => Effort::Fast,
            Compression::Balanced => Effort::Balanced,
            Compression::Dense => Effort::Dense,
        }
    }
}

#[derive(Args, Debug, Default)]
pub(crate) struct BackupArgs {
    /// The node's data directory
    pub(crate) node_dir: PathBuf,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// The node's name in the vault [default: the directory's name] [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Tag of the snapshot
    #[arg(long, value_name = "K=V", value_parser = values::pair::<String>)]
    pub(crate) tag: Vec<(String, String)>,
    /// Mark of the node (a height, a commitment number); recorded as claimed
    #[arg(long, value_name = "NAME=N", value_parser = values::pair::<u64>)]
    pub(crate) mark: Vec<(String, u64)>,
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    /// Read every file, also the unchanged ones
    #[arg(long)]
    pub(crate) rehash: bool,
    /// Store everything anew, building on no earlier snapshot: the way on where one is damaged
    #[arg(long)]
    pub(crate) full: bool,
    /// Read at most this many bytes a second (10M and 10MiB: 10 × 1024²; 10MB: 10 × 1000²)
    #[arg(long, value_name = "BYTES", value_parser = values::size)]
    pub(crate) limit_rate: Option<u64>,
    /// How hard what is stored is compressed [default: balanced]
    #[arg(long)]
    pub(crate) effort: Option<Compression>,
    /// How long a writer of a SQLite in rollback-journal mode may be kept waiting [default: 30s]
    #[arg(long, value_name = "SECONDS", value_parser = values::duration)]
    pub(crate) max_block: Option<Duration>,
    /// Accept several databases without a common instant
    #[arg(long)]
    pub(crate) no_barrier: bool,
    /// Stop process PID, and every other one that writes the node's files, for the milliseconds that
    /// an image of them takes: for a running node that can't be changed, of any engine
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) freeze: Option<u32>,
    /// How many milliseconds a freeze may last; refused, or given up, where it would be longer
    /// [default: 1000]
    #[arg(long, value_name = "MS", value_parser = values::millis, requires = "freeze")]
    pub(crate) max_pause: Option<Duration>,
    /// Go on as the node of that name, although this directory carries another uid
    #[arg(long)]
    pub(crate) adopt: bool,
    /// The node's schema version, recorded
    #[arg(long, value_name = "VERSION")]
    pub(crate) schema: Option<u64>,
    /// A restore of the node withholds its databases until `guard release`: for nodes that can't be
    /// changed, and whose old state is dangerous. Later backups keep to it without the flag
    #[arg(long)]
    pub(crate) guarded: bool,
    /// Leaves out what a known node fetches or builds again; `inspect` says what that is
    #[arg(long)]
    pub(crate) lean: bool,
    /// Channel nodes, validators and sequencers that are recognised are held back once they are restored,
    /// without any flag; with this they are not, for the reason that is recorded
    #[arg(long, value_name = "REASON", conflicts_with = "guarded")]
    pub(crate) unguarded: Option<String>,
}

#[derive(Args, Debug, Default)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SnapshotsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SnapshotsCommand>,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// One node alone [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum SnapshotsCommand {
    /// Say that what a snapshot lacks is missing on purpose
    ///
    /// A snapshot that lacks a part of the one before, or has half of its bytes or fewer, makes `status`
    /// exit with 9, and no policy forgets the one before, until somebody says that this is right.
    Acknowledge(AcknowledgeArgs),
}

#[derive(Args, Debug)]
pub(crate) struct AcknowledgeArgs {
    /// An id, a unique prefix of one, or `latest`
    pub(crate) snapshot: String,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// The node, where the vault has several [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Why; recorded in the vault
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// An id, a unique prefix of one, or `latest`
    pub(crate) snapshot: String,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// The node, where the vault has several [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
}

#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// The older snapshot: an id, a unique prefix of one, or `latest`
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) from: String,
    /// The newer snapshot
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// The node, where the vault has several [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
}

#[derive(Args, Debug, Default)]
pub(crate) struct CheckArgs {
    /// One snapshot alone: an id, a unique prefix of one, or `latest`
    pub(crate) snapshot: Option<String>,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// One node alone [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Read, open and compare every byte
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Read a share only, as 5%: the packs that were read longest ago, or never, so that twenty
    /// runs of 5% read all
    #[arg(long, value_name = "SHARE", requires = "read_data")]
    pub(crate) subset: Option<Share>,
    /// Restore into a scratch directory and let the engines check their data; without SNAPSHOT,
    /// the newest snapshot of each node
    #[arg(long)]
    pub(crate) restore_test: bool,
    /// Where the restore test puts its scratch directory [default: the temporary directory]
    #[arg(long, value_name = "DIR", requires = "restore_test")]
    pub(crate) scratch: Option<PathBuf>,
}

#[derive(Args, Debug, Default)]
pub(crate) struct ForgetArgs {
    /// Forget these: ids, or unique prefixes
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = RULES)]
    pub(crate) snapshots: Vec<String>,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// One node alone; else each of the vault by itself [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Keep the last N
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest of each of N hours (UTC) that have a snapshot
    #[arg(long, value_name = "N")]
    pub(crate) keep_hourly: Option<u32>,
    /// Keep the newest of each of N days
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<u32>,
    /// Keep the newest of each of N weeks, which begin on Monday
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<u32>,
    /// Keep the newest of each of N months
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<u32>,
    /// Keep all that are younger, seen from the newest, as 30d
    #[arg(long, value_name = "AGE", value_parser = values::duration)]
    pub(crate) keep_within: Option<Duration>,
    /// Keep all with this tag
    #[arg(long, value_name = "K[=V]", value_parser = values::tag)]
    pub(crate) keep_tag: Vec<(String, Option<String>)>,
    /// Bring a forgotten snapshot back, as long as no prune has begun to delete it
    #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["snapshots", "node", "dry_run", "prune"])]
    #[arg(conflicts_with_all = RULES)]
    pub(crate) undo: Option<String>,
    /// Prune afterwards
    #[arg(long)]
    pub(crate) prune: bool,
    /// Print what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) how: PruneHowArgs,
}

/// The rules of a policy.
const RULES: [&str; 7] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_within",
    "keep_tag",
];

#[derive(Args, Debug, Default)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// Print what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) how: PruneHowArgs,
}

/// How a prune decides.
#[derive(Args, Debug, Default)]
pub(crate) struct PruneHowArgs {
    /// Delete what was forgotten at least this long ago, by the store's clock [default: 48h]
    ///
    /// Less is for those who know that nobody restores or checks such a snapshot at this time: its
    /// packs go while it is read. A backup that runs is safe whatever this says.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) grace: Option<Duration>,
    /// Rewrite packs until no more than this share of all that is stored is unneeded; 100% rewrites
    /// nothing, and reads no index to find out [default: 10%]
    #[arg(long, value_name = "SHARE")]
    pub(crate) max_unused: Option<Share>,
    /// Copy no more bytes at once while rewriting; the next prune goes on [default: 4GiB]
    #[arg(long, value_name = "BYTES", value_parser = values::size)]
    pub(crate) max_rewrite: Option<u64>,
}

impl PruneHowArgs {
    /// Whether any of them was given.
    pub(crate) fn is_given(&self) -> bool {
        let PruneHowArgs { grace, max_unused, max_rewrite } = self;
        grace.is_some() || max_unused.is_some() || max_rewrite.is_some()
    }
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// An id, a unique prefix of one, or `latest`
    pub(crate) snapshot: String,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// The node, where the vault has several [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// The archive, made with mode 0600; `-` is standard output, and the answer then goes to
    /// standard error [default: NODE-TIME.hwa in the current directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Leave out what this older snapshot has: who imports has it already
    #[arg(long, value_name = "SNAPSHOT")]
    pub(crate) since: Option<String>,
    /// Replace the output where it exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// The server: https://HOST:PORT, or http://127.0.0.1:PORT on this machine
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// The archive, made with mode 0600 [default: NODE-TIME.hwa in the current directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The node, where the server has several [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// A snapshot that is there: an id, a unique prefix of one, or `latest`
    #[arg(long, value_name = "SNAPSHOT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) snapshot: Option<String>,
    /// Leave out what this older snapshot has, which is here already
    #[arg(long, value_name = "SNAPSHOT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) since: Option<String>,
    /// Only a snapshot whose mark `height` has reached this
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) target_height: u64,
    /// File with the token that the server knows this caller by, mode 0600
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM certificates that the server's must be signed by [default: those that the system trusts]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Send all, the token included, to another machine without encryption
    #[arg(long)]
    pub(crate) allow_http: bool,
    /// Give up after this time, such as 30 (seconds), 10m, 2h [default: never]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Replace the output where it exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The archives, in the order of their chain; `-` is standard input
    #[arg(required = true, value_name = "ARCHIVE")]
    pub(crate) archives: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
}

#[derive(Args, Debug, Default)]
#[command(override_usage = "highwater restore [OPTIONS] <SNAPSHOT> <NODE_DIR>\n       \
    highwater restore [OPTIONS] <NODE_DIR> --from <ARCHIVE>...")]
pub(crate) struct RestoreArgs {
    /// An id, a unique prefix of one, or `latest`; left out with --from
    pub(crate) snapshot: OsString,
    /// Where the node directory is to stand
    #[arg(required_unless_present = "from")]
    pub(crate) node_dir: Option<PathBuf>,
    /// Restore from archives alone, in the order of their chain; no vault is needed
    #[arg(long, value_name = "ARCHIVE", num_args = 1.., conflicts_with_all = ["vault", "node_dir"])]
    pub(crate) from: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// The node, where the vault has several [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// The newest snapshot not taken after this time, such as 2026-11-21T08:30:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) before: Option<Time>,
    /// One part alone; the others stay as they are
    #[arg(long, value_name = "NAME")]
    pub(crate) part: Option<String>,
    /// Only a snapshot that is known to be so good: `sealed` or `restored`
    #[arg(long, value_name = "LEVEL", value_parser = values::level)]
    pub(crate) require: Option<Level>,
    /// Print what would happen, and change nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Replace a target that holds something; it is kept for `rollback`
    #[arg(long)]
    pub(crate) force: bool,
    /// The node that was backed up runs nowhere and never will again, and how that is known: recorded.
    /// Without it, and without a witness, the word of its peers clears no channel
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) original_gone: Option<String>,
    /// The schema version that the node's program knows: a newer snapshot is refused
    #[arg(long, value_name = "VERSION")]
    pub(crate) schema: Option<u64>,
    /// Owner and group of all that is restored, as numbers
    #[arg(long, value_name = "UID:GID", value_parser = values::owner)]
    pub(crate) owner: Option<(u32, u32)>,
    /// Bring back set-user-id and set-group-id bits of files, and capabilities; else they are left out,
    /// and named
    #[arg(long)]
    pub(crate) setid: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    /// The node directory
    pub(crate) node_dir: PathBuf,
    /// Show the directories that are kept, the newest first
    #[arg(long, conflicts_with_all = ["to", "redo", "drop"])]
    pub(crate) list: bool,
    /// Bring back the one with this number of the list; without it, undo the last restore
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["redo", "drop"])]
    pub(crate) to: Option<usize>,
    /// Undo the last rollback: the restored directory comes back
    #[arg(long, conflicts_with = "drop")]
    pub(crate) redo: bool,
    /// Remove the one with this number of the list, for good
    #[arg(long, value_name = "NUMBER")]
    pub(crate) drop: Option<usize>,
}

#[derive(Args, Debug)]
pub(crate) struct TargetArgs {
    /// The node directory
    pub(crate) node_dir: PathBuf,
}

#[derive(Subcommand, Debug)]
pub(crate) enum KeyCommand {
    /// Add a slot; nothing is sealed again
    Add(KeyAddArgs),
    /// List the slots
    List(VaultArgs),
    /// Remove a slot; the last one can't be removed
    Remove(KeyRemoveArgs),
}

#[derive(Args, Debug)]
pub(crate) struct KeyAddArgs {
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    #[command(flatten)]
    pub(crate) new: NewKeyArgs,
    /// What the slot is for
    #[arg(long, value_name = "TEXT", default_value = "added")]
    pub(crate) label: String,
}

/// What opens the new slot.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct NewKeyArgs {
    /// The new slot opens with this key file
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key_file: Option<PathBuf>,
    /// The new slot opens with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
    /// The new slot opens with the mnemonic in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) new_mnemonic_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct KeyRemoveArgs {
    /// The slot: its id, or a unique prefix of it
    pub(crate) slot: String,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
}

#[derive(Subcommand, Debug)]
pub(crate) enum OwnerCommand {
    /// Show who owns a node
    Show(OwnerArgs),
    /// Give the ownership up, so that anybody may claim it
    Release(OwnerChangeArgs),
    /// Become the owner under a new epoch: the old one's next backup fails
    TakeOver(OwnerChangeArgs),
}

#[derive(Args, Debug)]
pub(crate) struct OwnerArgs {
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// The node, where the vault has several [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
}

#[derive(Args, Debug)]
pub(crate) struct OwnerChangeArgs {
    #[command(flatten)]
    pub(crate) owner: OwnerArgs,
    /// Why; recorded in the vault
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
}

#[derive(Args, Debug, Default)]
pub(crate) struct StatusArgs {
    /// Node directories: say of each what of it is quarantined
    pub(crate) node_dir: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// One node alone [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Exit with 9 where a node's newest snapshot is older, as 26h, or lies in the future
    #[arg(long, value_name = "AGE", value_parser = values::duration)]
    pub(crate) max_age: Option<Duration>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum GuardCommand {
    /// List what is quarantined; exit code 10 while anything is
    List(TargetArgs),
    /// Show all that is recorded: our numbers, evidence, verdict, release
    Show(GuardShowArgs),
    /// Let a channel or a database go on without proof; recorded with who and why
    Release(GuardReleaseArgs),
    /// Wait until nothing is quarantined; exit code 10 where the time is over first
    ///
    /// As ExecCondition= of a unit it is for nodes that can't be changed: one that embeds the guard
    /// judges its channels only once it runs.
    Wait(GuardWaitArgs),
}

#[derive(Args, Debug)]
pub(crate) struct GuardShowArgs {
    /// The node directory
    pub(crate) node_dir: PathBuf,
    /// One channel, or the part of one database, alone
    pub(crate) channel: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct GuardReleaseArgs {
    /// The node directory
    pub(crate) node_dir: PathBuf,
    /// The channel, or the part of the database, as `guard list` names it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) channel: Option<String>,
    /// All that is quarantined
    #[arg(long)]
    pub(crate) all: bool,
    /// Why; recorded in the node directory
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
    /// Release a state that is known to be old: what the node signs from it can be punished
    #[arg(long)]
    pub(crate) although_old: bool,
    #[command(flatten)]
    pub(crate) floor: FloorArgs,
}

/// What the release of a signer asks for.
#[derive(Args, Debug)]
pub(crate) struct FloorArgs {
    /// Where the signer's chain is, looked up once the original has stopped: height=N, the latest
    /// committed one; or slot=N and epoch=N above the current ones. The signer signs nothing up to
    /// there. Repeatable
    #[arg(long, value_name = "NAME=N", value_parser = values::pair::<u64>)]
    pub(crate) floor: Vec<(String, u64)>,
    /// The chain was begun anew, and why that is known: what was signed on the old one is forgotten
    #[arg(long, value_name = "TEXT", conflicts_with = "accept_floor", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) new_chain: Option<String>,
    /// Take the floor as it is, --floor height=N --floor round=N, and why: for a single validator
    /// that would halt its chain
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) accept_floor: Option<String>,
    /// State that the original of this copy never runs again, and how that is known
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) original_gone: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct GuardWaitArgs {
    /// The node directory
    pub(crate) node_dir: PathBuf,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
}

/// How long somebody waits for a release.
#[derive(Args, Debug)]
pub(crate) struct PatienceArgs {
    /// Exit with 10 after this time, such as 30 (seconds), 500ms, 2h; 0 looks once and does not wait
    /// [default: wait for ever]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The node directory
    pub(crate) node_dir: PathBuf,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
    /// The node's program, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Where the pages go; made if missing
    pub(crate) dir: PathBuf,
}

#[derive(Subcommand, Debug)]
pub(crate) enum KitCommand {
    /// Seal a kit from what the node wrote for it
    Export(KitExportArgs),
    /// Show what a kit tells without a key
    Show(KitShowArgs),
    /// Open a kit, without the vault
    Open(KitOpenArgs),
}

#[derive(Args, Debug)]
pub(crate) struct KitExportArgs {
    /// The node's data directory
    pub(crate) node_dir: PathBuf,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    /// The sealed kit, made with mode 0600
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The content of the kit [default: .highwater/kit.json in NODE_DIR]
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// The node's name [default: the directory's name] [env: HIGHWATER_NODE]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Replace the output where it exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KitShowArgs {
    /// The sealed kit
    pub(crate) kit: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct KitOpenArgs {
    /// The sealed kit
    pub(crate) kit: PathBuf,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Where its content goes, secrets included: a new file, made with mode 0600; `-` prints it
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// Arguments of `serve`; all else is in the settings file.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
}

/// What becomes of tokens.
#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Make a token, shown this once
    Add(TokenAddArgs),
    /// List the tokens
    List(TokensFileArgs),
    /// Take a token out: calls with it fail from then on
    Remove(TokenRemoveArgs),
}

/// The file of tokens.
#[derive(Args, Debug)]
pub(crate) struct TokensFileArgs {
    /// The file, mode 0600 [default: `tokens_file` of the settings]
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens_file: Option<PathBuf>,
}

/// Arguments of `token add`.
#[derive(Args, Debug)]
pub(crate) struct TokenAddArgs {
    #[command(flatten)]
    pub(crate) file: TokensFileArgs,
    /// Who will have it; stands in the audit file
    #[arg(long, value_name = "NAME")]
    pub(crate) label: String,
    /// read: looks; backup: also starts and cancels; admin: also releases from quarantine
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Scope,
}

/// Arguments of `token remove`.
#[derive(Args, Debug)]
pub(crate) struct TokenRemoveArgs {
    #[command(flatten)]
    pub(crate) file: TokensFileArgs,
    /// Whose it is
    #[arg(value_name = "NAME")]
    pub(crate) label: String,
}
