//! Fiber, payment channels on CKB: `fiber/store` and the keys beside it.

use highwater::ids::RelPath;

use crate::profile::{Files, Profile};

pub(crate) struct Fiber;

impl Profile for Fiber {
    fn name(&self) -> &'static str {
        "fiber"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with("fiber/store")
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a node that runs on an old store publishes commitments that it has revoked, and its peers take all \
         that is in those channels",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[&["fiber/sk"], &["ckb/key"]]
    }

    fn lean(&self) -> &'static [&'static str] {
        &["fiber/backups"]
    }
}
