//! eclair: `eclair.sqlite` in the directory of a network, seeds beside it or above.

use highwater::ids::RelPath;

use crate::ldk::WAY_OUT;
use crate::profile::{Files, Profile};

pub(crate) struct Eclair;

impl Profile for Eclair {
    fn name(&self) -> &'static str {
        "eclair"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with("eclair.sqlite")
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a node that runs on an old database publishes commitments that it has revoked, and its peers take \
         all that is in those channels",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    fn lean(&self) -> &'static [&'static str] {
        &["network.sqlite"]
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(WAY_OUT)
    }
}
