//! Arguments of `replica migrate`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `replica migrate`.
#[derive(Args, Debug)]
pub(crate) struct ReplicaMigrateArgs {
    /// The database that is made
    #[arg(value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The server: https://HOST/vss
    #[arg(long, value_name = "URL")]
    pub(crate) server: String,
    /// The id of the store that the node has written
    #[arg(long, value_name = "ID")]
    pub(crate) from_store: String,
    #[command(flatten)]
    pub(crate) seed: SeedArgs,
    /// File with the passphrase of the mnemonic, where the node has one
    #[arg(long, value_name = "FILE", requires = "mnemonic_file")]
    pub(crate) mnemonic_passphrase_file: Option<PathBuf>,
    /// File with the token that the server takes; without it we don't show who we are
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates, as PEM, that the server's must stand on, instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allow http:// to another machine
    #[arg(long)]
    pub(crate) allow_http: bool,
}

/// What the node's keys come from.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct SeedArgs {
    /// File with the words of the node's mnemonic
    #[arg(long, value_name = "FILE")]
    pub(crate) mnemonic_file: Option<PathBuf>,
    /// File with the 64 bytes of the node's seed: its `keys_seed`
    #[arg(long, value_name = "FILE")]
    pub(crate) seed_file: Option<PathBuf>,
}
