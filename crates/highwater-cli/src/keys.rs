//! From a file that the operator names to the secret that opens a slot.

use std::path::{Path, PathBuf};

use highwater::vault::{Location, Secret};
use highwater::{Error, Kind, Result};

use crate::cli::NewKeyArgs;
use crate::places;

/// The file that a secret is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// 64 hex digits and a newline.
    Key(PathBuf),
    /// A passphrase.
    Passphrase(PathBuf),
    /// The words of a BIP-39 mnemonic.
    Mnemonic(PathBuf),
}

impl KeySource {
    /// What the flags of `key add` name; clap sees to it that they name one.
    pub(crate) fn of_new(args: &NewKeyArgs) -> Result<KeySource> {
        match (&args.new_key_file, &args.new_passphrase_file, &args.new_mnemonic_file) {
            (Some(path), None, None) => Ok(KeySource::Key(path.clone())),
            (None, Some(path), None) => Ok(KeySource::Passphrase(path.clone())),
            (None, None, Some(path)) => Ok(KeySource::Mnemonic(path.clone())),
            _ => Err(Error::input(
                "give one of --new-key-file, --new-passphrase-file and --new-mnemonic-file",
            )),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            KeySource::Key(path) | KeySource::Passphrase(path) | KeySource::Mnemonic(path) => path,
        }
    }

    /// The secret in it.
    pub(crate) fn load(&self) -> Result<Secret> {
        match self {
            KeySource::Key(path) => Secret::from_key_file(path),
            KeySource::Passphrase(path) => Secret::from_passphrase_file(path),
            KeySource::Mnemonic(path) => Secret::from_mnemonic_file(path),
        }
    }

    /// The secret in it, and whether its file was made just now: a key file that is missing is.
    pub(crate) fn load_or_make(&self) -> Result<(Secret, bool)> {
        match (self.load(), self) {
            (Err(error), KeySource::Key(path)) if error.kind() == Kind::NotFound => {
                Ok((Secret::create_key_file(path)?, true))
            }
            (secret, _) => Ok((secret?, false)),
        }
    }

    /// Refuses a secret inside the vault, where whoever holds the vault could open it.
    pub(crate) fn refuse_inside_vault(&self, location: &Location) -> Result<()> {
        location.paths().iter().try_for_each(|path| {
            self.refuse_inside(path, "the vault", "whoever has the vault could open it")
        })
    }

    /// Refuses a secret inside the node directory, with which it would be lost.
    pub(crate) fn refuse_inside_node(&self, dir: &Path) -> Result<()> {
        self.refuse_inside(dir, "the node directory", "it would be lost with the node")
    }

    fn refuse_inside(&self, dir: &Path, what: &str, why: &str) -> Result<()> {
        if !places::is_inside(self.path(), dir)? {
            return Ok(());
        }
        Err(Error::input(format!("the key is inside {what}: {why}"))
            .with_remedy("move it elsewhere, and keep a copy on another machine")
            .with_entry(places::text(self.path())))
    }
}
