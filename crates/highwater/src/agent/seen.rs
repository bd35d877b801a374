//! The snapshots of a node, as its agent has seen them. A manifest never changes, so each is opened once: a look
//! costs what is new, however many there are.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::ids::NodeName;
use crate::vault::shrink::Loss;
use crate::vault::{SnapshotName, Vault, with_others};

use super::snapshot::Snapshot;

/// So many manifests are open at once.
const AT_ONCE: usize = 64;

/// What has been opened.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<SnapshotName, Facts>);

/// Of a snapshot: as it was at first, and all that it lacks, acknowledged or not.
struct Facts {
    snapshot: Snapshot,
    losses: Vec<Loss>,
}

impl Seen {
    /// The visible snapshots of a node, oldest first, as they stand now.
    ///
    /// # Errors
    /// Those of the store; corrupt where a manifest that is new here is damaged.
    pub(super) fn look(&mut self, vault: &Vault, node: &NodeName) -> Result<Vec<Snapshot>> {
        let names = vault.snapshot_names(Some(node))?;
        // They are in order.
        self.0.retain(|known, _| names.binary_search(known).is_ok());
        let fresh: Vec<SnapshotName> =
            names.iter().filter(|name| !self.0.contains_key(name)).cloned().collect();
        for some in fresh.chunks(AT_ONCE) {
            for (name, info) in some.iter().zip(vault.snapshot_infos(some)) {
                let info = info.map_err(|error| with_others(error, name, &names))?;
                let facts = Facts { snapshot: Snapshot::from(&info), losses: info.manifest.shrunk };
                self.0.insert(name.clone(), facts);
            }
        }
        let standing = vault.standing(node)?;
        let judged = names.iter().filter_map(|name| self.0.get(name)).map(|facts| {
            let mut snapshot = facts.snapshot.clone();
            snapshot.level = standing.level(snapshot.snapshot);
            snapshot.shrunk = standing.pending(&facts.losses);
            snapshot
        });
        Ok(judged.collect())
    }
}
