//! A vault that is opened when it is needed: a store that can't be reached must not keep a node from
//! starting.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::vault::Vault;

type Open = dyn Fn() -> Result<Vault> + Send + Sync;

/// A vault, or the way to open it; clones share it.
#[derive(Clone)]
pub struct VaultSource {
    open: Arc<Open>,
    opened: Arc<Mutex<Option<Arc<Vault>>>>,
    location: Arc<str>,
}

impl VaultSource {
    /// A vault that `open` opens at the first use, and again after it has failed; `location` is what
    /// operators read.
    pub fn new(
        location: impl Into<String>,
        open: impl Fn() -> Result<Vault> + Send + Sync + 'static,
    ) -> VaultSource {
        let (open, opened) = (Arc::new(open), Arc::default());
        VaultSource { open, opened, location: location.into().into() }
    }

    /// Where it is, as operators read it.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The vault.
    ///
    /// # Errors
    /// What opening it says; the next call tries again.
    pub fn get(&self) -> Result<Arc<Vault>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vault) = opened.as_ref() {
            return Ok(Arc::clone(vault));
        }
        let vault = Arc::new((self.open)()?);
        *opened = Some(Arc::clone(&vault));
        Ok(vault)
    }

    /// Gives back the memory that reading the vault has taken.
    pub(super) fn rest(&self) {
        if let Some(vault) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            vault.forget_packs();
        }
    }
}

impl From<Vault> for VaultSource {
    fn from(vault: Vault) -> VaultSource {
        let location = vault.location().to_string();
        let opened = Arc::new(Mutex::new(Some(Arc::new(vault))));
        let never = || Err(crate::Error::bug("an open vault was opened"));
        VaultSource { open: Arc::new(never), opened, location: location.into() }
    }
}
