//! A vault that is opened when it is needed: a store that can't be reached must not keep a node from
//! starting.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Result;
use crate::vault::Vault;

/// Deleting what was forgotten needs no more than this, whatever agents share the vault.
const PRUNE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

type Open = dyn Fn() -> Result<Vault> + Send + Sync;

/// A vault, or the way to open it; clones share it.
#[derive(Clone)]
pub struct VaultSource {
    open: Arc<Open>,
    opened: Arc<Mutex<Option<Arc<Vault>>>>,
    location: Arc<str>,
    pruned_at: Arc<Mutex<Option<Duration>>>,
}

impl VaultSource {
    /// A vault that `open` opens at the first use, and again after it has failed; `location` is what
    /// operators read.
    pub fn new(
        location: impl Into<String>,
        open: impl Fn() -> Result<Vault> + Send + Sync + 'static,
    ) -> VaultSource {
        VaultSource {
            open: Arc::new(open),
            opened: Arc::default(),
            location: location.into().into(),
            pruned_at: Arc::default(),
        }
    }

    /// Where it is, as operators read it.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The vault.
    ///
    /// # Errors
    /// What opening it says, a panic included; the next call tries again.
    pub fn get(&self) -> Result<Arc<Vault>> {
        let mut opened = self.opened.lock();
        if let Some(vault) = opened.as_ref() {
            return Ok(Arc::clone(vault));
        }
        let open = AssertUnwindSafe(|| (self.open)());
        let vault = std::panic::catch_unwind(open)
            .unwrap_or_else(|panic| Err(super::panic::panicked(panic.as_ref())))?;
        let vault = Arc::new(vault);
        *opened = Some(Arc::clone(&vault));
        Ok(vault)
    }

    /// Whether no agent that shares the vault has pruned it for long.
    pub(super) fn prune_is_due(&self, now: Duration) -> bool {
        let at = *self.pruned_at.lock();
        at.is_none_or(|at| now.saturating_sub(at) >= PRUNE_EVERY)
    }

    pub(super) fn pruned(&self, now: Duration) {
        *self.pruned_at.lock() = Some(now);
    }

    /// Gives back the memory that reading the vault has taken.
    pub(super) fn rest(&self) {
        if let Some(vault) = self.opened.lock().as_ref() {
            vault.forget_packs();
        }
    }
}

impl From<Vault> for VaultSource {
    fn from(vault: Vault) -> VaultSource {
        let location = vault.location().to_string();
        let opened = Arc::new(Mutex::new(Some(Arc::new(vault))));
        let never = || Err(crate::Error::bug("an open vault was opened"));
        VaultSource {
            open: Arc::new(never),
            opened,
            location: location.into(),
            pruned_at: Arc::default(),
        }
    }
}
