//! ev-node, a sequencer: `config/signer.json` beside the Badger database in which it keeps its blocks.

use highwater::ids::RelPath;

use crate::profile::{Files, Profile};

pub(crate) struct EvNode;

impl Profile for EvNode {
    fn name(&self) -> &'static str {
        "ev-node"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with("config/signer.json")
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a sequencer that has forgotten what it signed signs other blocks for the same heights",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[&["data"]]
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &["config/signer.json"]
    }
}
