//! The snapshots of a node, as its agent has seen them. A manifest never changes, so each is opened once: a look
//! costs what is new, however many there are.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::ids::NodeName;
use crate::vault::shrink::Loss;
use crate::vault::{SnapshotName, Vault, with_others};

use super::snapshot::Snapshot;

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
        for some in fresh.chunks(vault.opened_at_once()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backup;
    use crate::error::Kind;
    use crate::vault::{Actor, Level, Location, Secret};

    #[test]
    fn a_manifest_is_opened_once_and_its_level_is_that_of_now() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("node")).unwrap();
        std::fs::write(dir.path().join("node/state"), "seven channels").unwrap();
        let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
        let location = Location::Local(dir.path().join("vault"));
        let vault = Vault::create(&location, &secret).unwrap();
        let actor = Actor::new(dir.path().join("actor"), "tests");
        let first = Backup::of(dir.path().join("node")).run(&vault, &actor).unwrap();
        let (node, mut seen) = (first.node, Seen::default());
        let look = |seen: &mut Seen| seen.look(&vault, &node);
        assert_eq!(look(&mut seen).unwrap()[0].level, Level::Sealed);

        let name = vault.snapshot_names(Some(&node)).unwrap().remove(0);
        let manifest = dir.path().join("vault").join(name.object());
        let bytes = std::fs::read(&manifest).unwrap();
        std::fs::write(&manifest, "junk").unwrap();
        assert_eq!(look(&mut Seen::default()).unwrap_err().kind(), Kind::Corrupt);
        vault.record_test(&node, first.snapshot, true).unwrap();
        assert_eq!(look(&mut seen).unwrap()[0].level, Level::Restored);

        std::fs::write(&manifest, bytes).unwrap();
        let second = Backup::of(dir.path().join("node")).run(&vault, &actor).unwrap();
        let found: Vec<_> = look(&mut seen).unwrap().iter().map(|one| one.snapshot).collect();
        assert_eq!(found, [first.snapshot, second.snapshot]);
        std::fs::remove_file(&manifest).unwrap();
        assert_eq!(look(&mut seen).unwrap().len(), 1);
    }
}
