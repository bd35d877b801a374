//! Lighthouse, a validator client of Ethereum: `validators/slashing_protection.sqlite`.

use highwater::ids::RelPath;

use crate::profile::{Files, Profile};

pub(crate) struct Lighthouse;

impl Profile for Lighthouse {
    fn name(&self) -> &'static str {
        "lighthouse"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with("validators/slashing_protection.sqlite")
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a validator that has forgotten what it signed signs the same slots and epochs again, and is slashed \
         for it",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[]
    }
}
