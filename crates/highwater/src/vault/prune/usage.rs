//! Which units of which packs the visible snapshots need, and which packs are worth rewriting.

use std::collections::{BTreeMap, HashSet};

use crate::control::Control;
use crate::error::{Kind, Result};
use crate::ids::PackId;
use crate::vault::checked::Share;
use crate::vault::manifest::{ContentHash, Leaf, Manifest, PackRef, Runs};
use crate::vault::pack::PackIndex;
use crate::vault::read::{LoadedLeaf, PACKS_AHEAD, leaf_packs};
use crate::vault::{SnapshotName, Vault};

/// What of a pack is needed: a bit for each unit.
struct Needed {
    size: u64,
    units: Vec<u64>,
}

/// What of every pack is needed.
#[derive(Default)]
pub(super) struct Usage {
    packs: BTreeMap<PackId, Needed>,
}

/// A pack, and how much of it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) pack: PackRef,
    /// Stored bytes of its units; the index comes on top.
    pub(super) data: u64,
    /// Those of the units that are needed, about.
    pub(super) used: u64,
}

/// The same leaf in another snapshot is the same leaf.
pub(super) type LeafIdentity = (ContentHash, Vec<u8>, Vec<PackId>, Option<(u32, u32)>);

/// By what two leaves are known to lead to the same places.
pub(super) fn leaf_identity(leaf: &Leaf, packs: &[PackRef]) -> LeafIdentity {
    let ids = packs.iter().map(|pack| pack.id).collect();
    match &leaf.runs {
        Runs::Inline(runs) => (leaf.content, runs.clone().into_bytes(), ids, None),
        Runs::Stored { pack, unit } => (leaf.content, Vec::new(), ids, Some((*pack, *unit))),
    }
}

impl Usage {
    /// Looks at every leaf of the snapshots.
    pub(super) fn of(vault: &Vault, names: &[SnapshotName], control: &Control) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut seen: HashSet<LeafIdentity> = HashSet::new();
        for name in names {
            let manifest = match vault.manifest(name) {
                // Another prune has deleted it since it was listed.
                Err(error) if error.kind() == Kind::NotFound => continue,
                manifest => manifest?,
            };
            for entry in manifest.entries() {
                for (number, leaf) in entry.leaves.iter().enumerate() {
                    control.cancel.check()?;
                    let packs = leaf_packs(&manifest, leaf).unwrap_or_default();
                    if seen.insert(leaf_identity(leaf, &packs)) {
                        usage.add(leaf, &vault.load_leaf(&manifest, entry, number)?);
                    }
                }
            }
            usage.name_all(&manifest);
        }
        Ok(usage)
    }

    /// The lists of entries. A pack that is named and of which nothing is needed is a pack all the same.
    fn name_all(&mut self, manifest: &Manifest) {
        for pack in &manifest.packs {
            self.needed(*pack);
        }
        for list in manifest.parts.iter().flat_map(|part| &part.lists) {
            if let Some(&pack) = manifest.packs.get(list.pack as usize) {
                self.needed(pack).set(list.unit);
            }
        }
    }

    fn needed(&mut self, pack: PackRef) -> &mut Needed {
        let fresh = || Needed { size: pack.size, units: Vec::new() };
        self.packs.entry(pack.id).or_insert_with(fresh)
    }

    fn add(&mut self, leaf: &Leaf, loaded: &LoadedLeaf) {
        for place in loaded.units.iter().filter_map(|unit| unit.place) {
            self.needed(loaded.packs[place.pack as usize]).set(place.unit);
        }
        if let Runs::Stored { pack, unit } = leaf.runs {
            self.needed(loaded.packs[pack as usize]).set(unit);
        }
    }

    /// How full each pack is.
    pub(super) fn fills(&self, vault: &Vault) -> Result<Vec<Fill>> {
        let fill = |pack: PackRef, needed: &Needed| -> Result<Fill> {
            let open = vault.open_pack(pack)?;
            let index = &open.index;
            let data = (0..index.frames()).map(|frame| u64::from(index.frame(frame).stored)).sum();
            Ok(Fill { pack, data, used: needed.bytes(index) })
        };
        let packs = self.packs.iter().map(|(&id, needed)| PackRef { id, size: needed.size });
        let packs: Vec<PackRef> = packs.collect();
        let mut fills = Vec::with_capacity(packs.len());
        let mut needed = self.packs.values();
        for packs in packs.chunks(PACKS_AHEAD) {
            vault.open_ahead(packs)?;
            for (&pack, needed) in packs.iter().zip(&mut needed) {
                fills.push(fill(pack, needed)?);
            }
        }
        Ok(fills)
    }
}

impl Needed {
    fn set(&mut self, unit: u32) {
        let word = unit as usize / 64;
        if word >= self.units.len() {
            self.units.resize(word + 1, 0);
        }
        self.units[word] |= 1 << (unit % 64);
    }

    fn has(&self, unit: u32) -> bool {
        self.units.get(unit as usize / 64).is_some_and(|word| word & 1 << (unit % 64) != 0)
    }

    fn bytes(&self, index: &PackIndex) -> u64 {
        let frame = |frame: usize| {
            let record = index.frame(frame);
            let first = index.first_unit(frame);
            let units = u64::from(record.units);
            let used = (first..first + u32::from(record.units)).filter(|&unit| self.has(unit));
            u64::from(record.stored) * used.count() as u64 / units
        };
        (0..index.frames()).map(frame).sum()
    }
}

impl Fill {
    pub(super) fn unused(&self) -> u64 {
        self.data.saturating_sub(self.used)
    }
}

/// The packs to rewrite, so that no more than a share of all bytes is unneeded: the emptiest first, as
/// long as no more than `bytes_max` are copied. A pack that is fuller than the share asks is left.
pub(super) fn choose(fills: &[Fill], unused_max: Share, bytes_max: u64) -> Vec<Fill> {
    let total: u64 = fills.iter().map(|fill| fill.data).sum();
    let mut unused: u64 = fills.iter().map(Fill::unused).sum();
    let mut order: Vec<&Fill> =
        fills.iter().filter(|fill| fill.unused() > unused_max.of(fill.data)).collect();
    // By the unneeded share of each, without a division: a/b > c/d where a·d > c·b.
    order.sort_by(|a, b| {
        let left = u128::from(b.unused()) * u128::from(a.data);
        let right = u128::from(a.unused()) * u128::from(b.data);
        left.cmp(&right).then(a.pack.id.cmp(&b.pack.id))
    });
    let mut chosen = Vec::new();
    let mut bytes = 0;
    for fill in order {
        if unused <= unused_max.of(total) {
            break;
        }
        if bytes + fill.used > bytes_max {
            continue;
        }
        bytes += fill.used;
        unused -= fill.unused();
        chosen.push(*fill);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(number: u8, size: u64, used: u64) -> Fill {
        Fill { pack: PackRef { id: PackId::from_bytes([number; 16]), size }, data: size, used }
    }

    fn chosen(fills: &[Fill], share: &str, bytes_max: u64) -> Vec<u8> {
        let chosen = choose(fills, share.parse().unwrap(), bytes_max);
        chosen.iter().map(|fill| fill.pack.id.as_bytes()[0]).collect()
    }

    #[test]
    fn the_emptiest_go_first_until_the_share_is_kept() {
        let fills = [fill(1, 100, 95), fill(2, 100, 10), fill(3, 200, 60), fill(4, 100, 100)];
        assert_eq!(chosen(&fills, "60%", 1000), [0; 0], "235 of 500 are unneeded");
        assert_eq!(chosen(&fills, "40%", 1000), [2]);
        assert_eq!(chosen(&fills, "10%", 1000), [2, 3]);
        assert_eq!(chosen(&fills, "1%", 1000), [2, 3], "the first one is full enough for itself");
        assert_eq!(chosen(&fills, "0.1%", 1000), [2, 3, 1]);
        assert_eq!(chosen(&fills, "0.1%", 69), [2], "no more is copied");
        let large = [fill(1, 1000, 500), fill(2, 100, 60)];
        assert_eq!(
            chosen(&large, "0.1%", 100),
            [2],
            "a large one does not stand before a small one"
        );
        assert_eq!(chosen(&[], "1%", 10), [0; 0]);
    }
}
