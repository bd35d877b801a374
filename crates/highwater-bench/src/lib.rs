//! What the programs in `src/bin` share, which measure what the library costs, or have made the files that its
//! tests keep. `make bench` runs some of them; what is printed goes into `docs/performance.md`.

pub mod idle;

use std::error::Error;
use std::path::Path;

use highwater::{Location, Secret, Vault};

/// What such a program returns.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// An argument of the program by its place, from 1; `usual` where it is not given.
///
/// # Errors
/// It is no number.
pub fn number(place: usize, usual: u64) -> Outcome<u64> {
    Ok(std::env::args().nth(place).map_or(Ok(usual), |text| text.parse())?)
}

/// A new vault in `dir`, its key file beside it.
///
/// # Errors
/// There is one already, or the directory can't be written.
pub fn new_vault(dir: &Path) -> Outcome<Vault> {
    let secret = Secret::create_key_file(&dir.join("vault.key"))?;
    let location = Location::Local(std::path::absolute(dir.join("vault"))?);
    Ok(Vault::create(&location, &secret)?)
}
