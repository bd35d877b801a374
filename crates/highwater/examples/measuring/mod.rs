//! What the programs that measure share. What a node needs is in the `agent-*` examples, each whole.

use std::error::Error;
use std::path::Path;

use highwater::Env;
use highwater::vault::{CreateOptions, Location, Secret, Vault};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// An argument of the program by its place, from 1; `usual` where it is not given.
pub(crate) fn number(place: usize, usual: u64) -> Outcome<u64> {
    Ok(std::env::args().nth(place).map_or(Ok(usual), |text| text.parse())?)
}

/// A new vault in `dir`, its key file beside it.
pub(crate) fn new_vault(dir: &Path) -> Outcome<Vault> {
    let location = Location::Local(std::path::absolute(dir.join("vault"))?);
    let secret = Secret::create_key_file(&dir.join("vault.key"))?;
    Ok(Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system())?.vault)
}
