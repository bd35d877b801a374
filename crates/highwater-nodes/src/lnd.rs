//! lnd: `data/graph/<network>/channel.db` (bbolt) or `channel.sqlite`, wallets beside it.

use highwater::ids::RelPath;

use crate::profile::{Files, Profile};

/// Where lnd keeps the channels of each network.
const GRAPHS: [&str; 2] = ["channel.db", "channel.sqlite"];

pub(crate) struct Lnd;

impl Profile for Lnd {
    fn name(&self) -> &'static str {
        "lnd"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        let graph = |dir: &RelPath| {
            let above = dir.parent()?;
            (above.name() == "graph").then(|| dir.clone())
        };
        GRAPHS.iter().flat_map(|name| files.with(name)).filter_map(|dir| graph(&dir)).collect()
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a node that runs on an old channel database publishes commitments that it has revoked, and its peers \
         take all that is in those channels",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[]
    }
}
