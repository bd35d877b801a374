//! Witness records: the highest numbers that may have left a node, written before they leave.
//!
//! `witness/<node>/<n>` is only ever created, by whoever has read `n − 1` as the newest: of two
//! writers one wins. Old records go, so a number can be free again; who was asleep since then must
//! not win it, and [`Vault::put_witness`] looks at the neighbours of what it has put.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::ids::{NodeName, PutId, Time};

use super::seal::ObjectKind;
use super::sealed;
use super::sealed::foreign;
use super::{Folder, Vault};

/// Records are deleted behind the newest so many.
const RECORDS_KEPT: u64 = 8;
/// The newest record can be pruned so often between finding and reading it.
const READ_TRIES_MAX: usize = 16;

/// What a witness remembers of a node, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessRecord {
    /// The version of this document; 1.
    pub version: u32,
    /// The node.
    pub node: NodeName,
    /// Rises by one with each record.
    pub number: u64,
    /// Rises with each takeover.
    pub epoch: u64,
    /// Who has taken it over, as it named itself.
    pub holder: String,
    /// When.
    pub since: Time,
    /// This put of it.
    pub put: PutId,
    /// The channels that are not known to be closed, by the node's own names.
    pub channels: BTreeMap<String, WitnessEntry>,
    /// Other numbers that only rise: of keys, heights.
    pub counters: BTreeMap<String, u64>,
    /// It is switched off; left out where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<WitnessOff>,
}

/// What a witness remembers of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessEntry {
    /// Commitments signed for the peer.
    pub signed: u64,
    /// Revocations sent.
    pub revoked: u64,
    /// Revocations received and acted on.
    pub received: u64,
    /// A closing or splice signature was given, or our own commitment was published.
    pub closing: bool,
    /// It was never switched off since the channel is in it.
    pub continuous: bool,
    /// The epoch under which a number was last raised.
    pub epoch: u64,
}

/// Why a witness is switched off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessOff {
    /// The operator's reason.
    pub reason: String,
    /// Since when.
    pub since: Time,
}

impl WitnessRecord {
    /// The record in the document `name`. Corrupt where it is none; input where a newer program
    /// wrote it.
    pub(crate) fn parse(name: &str, text: &[u8]) -> Result<WitnessRecord> {
        let record: WitnessRecord = sealed::parse(name, text)?;
        if record.version != 1 {
            return Err(foreign(name));
        }
        Ok(record)
    }

    /// The bytes of the document.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| Error::bug("a witness's record can't be written").with_source(error))
    }
}

pub(crate) fn witness_name(node: &NodeName, number: u64) -> String {
    Folder::Witness.object(format_args!("{node}/{number:020}"))
}

impl Vault {
    /// Input where the store does not keep two writers apart: two owners of one witness would not
    /// notice one another.
    pub(crate) fn refuse_overwriting_store(&self) -> Result<()> {
        self.refuse_unfenced("two owners of a witness in it would not notice one another")
    }

    /// The newest witness record of a node: its number and its document.
    pub(crate) fn newest_witness(&self, node: &NodeName) -> Result<Option<(u64, Vec<u8>)>> {
        for _ in 0..READ_TRIES_MAX {
            let Some(&number) = self.witness_numbers(node)?.last() else {
                return self.refuse_absent_vault().map(|()| None);
            };
            let name = witness_name(node, number);
            match self.store().get(&name) {
                Ok(object) => {
                    let text = sealed::open_text(self, ObjectKind::Witness, &name, &object)?;
                    return Ok(Some((number, text)));
                }
                // Others went on meanwhile, and pruned it.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::unavailable("the witness changes faster than it can be read")
            .with_entry(node.to_string()))
    }

    /// Puts record `number` of a node's witness, durable when it returns. `false` where it is not
    /// the one behind the newest: somebody else went on.
    ///
    /// A free name proves nothing: whoever was asleep for more than `RECORDS_KEPT` records finds its
    /// number pruned. Then a higher record is listed, and its predecessor, pruned before it, is not.
    pub(crate) fn put_witness(
        &self,
        node: &NodeName,
        number: u64,
        document: &[u8],
    ) -> Result<bool> {
        let name = witness_name(node, number);
        let object = sealed::seal_text(self, ObjectKind::Witness, &name, document)?;
        if !self.store().put_new(&name, object)? {
            return Ok(false);
        }
        let numbers = self.witness_numbers(node)?;
        let stands = |number: u64| numbers.binary_search(&number).is_ok();
        let follows = number == 1 || stands(number - 1);
        if numbers.last() == Some(&number) && follows {
            self.prune_witness(node, &numbers);
            return Ok(true);
        }
        // Between its neighbours it is the past, and not in anybody's way: the next was built on it.
        if !(follows && number.checked_add(1).is_some_and(stands)) {
            // It counts for nobody: a higher one does. What can't be deleted is pruned with the rest.
            let _ = self.store().delete(&name);
        }
        Ok(false)
    }

    /// Deletes old records, the lowest first, so that whoever finds a number free finds those
    /// below it gone. What can't be deleted is old all the same, and the next put tries again.
    fn prune_witness(&self, node: &NodeName, numbers: &[u64]) {
        let Some(newest) = numbers.last() else { return };
        let old = numbers.iter().take_while(|&&number| newest - number >= RECORDS_KEPT);
        for &number in old {
            if self.store().delete(&witness_name(node, number)).is_err() {
                return;
            }
        }
    }

    /// Unavailable where the vault is gone since it was opened (its disk was unmounted, say): what
    /// is not found there is not missing.
    fn refuse_absent_vault(&self) -> Result<()> {
        match self.store().size(super::folder::HEADER)? {
            Some(_) => Ok(()),
            None => Err(Error::unavailable("the vault is not where it was")
                .with_entry(self.location().to_string())),
        }
    }

    /// The numbers of the records that stand, sorted. Other names are left to `check`.
    fn witness_numbers(&self, node: &NodeName) -> Result<Vec<u64>> {
        let listed = self.store().list(Some(&Folder::Witness.object(node)))?;
        let numbers = listed.iter().filter_map(|listed| {
            let number: u64 = listed.name.rsplit_once('/')?.1.parse().ok()?;
            (witness_name(node, number) == listed.name).then_some(number)
        });
        Ok(numbers.collect())
    }

    /// Opens the witness record `name`, and compares it with its name.
    pub(crate) fn open_witness(&self, name: &str) -> Result<WitnessRecord> {
        let object = self.store().get(name)?;
        let text = sealed::open_text(self, ObjectKind::Witness, name, &object)?;
        let record = WitnessRecord::parse(name, &text)?;
        if witness_name(&record.node, record.number) != name {
            return Err(foreign(name));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
