//! Lighthouse, a validator client of Ethereum: `validators/slashing_protection.sqlite`.

use highwater::engine::Cell;
use highwater::ids::RelPath;
use highwater::vault::channel_mark;
use highwater::{Error, Result};

use crate::floor::{self, DATABASE, Signer, digits};
use crate::profile::{Content, Files, Marks, Profile, number};

/// How its copies go on, and what that costs.
const WAY_OUT: &str = "Its release asks for a floor, a slot and an epoch above the chain's current ones, looked up once \
    the original has stopped for good. That costs the duties of the two or three epochs until it attests again.";

pub(crate) struct Lighthouse;

impl Profile for Lighthouse {
    fn name(&self) -> &'static str {
        "lighthouse"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with(DATABASE)
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

    fn way_out(&self) -> Option<&'static str> {
        Some(WAY_OUT)
    }

    fn signer(&self) -> Option<&dyn Signer> {
        Some(&floor::Slots)
    }

    /// Of each validator the highest slot, source and target, by its public key.
    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        let highest = [
            ("slot", "signed_blocks", "slot"),
            ("source", "signed_attestations", "source_epoch"),
            ("target", "signed_attestations", "target_epoch"),
        ];
        for (what, table, column) in highest {
            let sql = format!(
                "SELECT public_key, MAX({column}) FROM {table} \
                 JOIN validators ON validators.id = validator_id GROUP BY validator_id"
            );
            for row in content.query(DATABASE, &sql)? {
                let key = row.first().and_then(Cell::text).and_then(digits);
                let key = key.ok_or_else(|| Error::corrupt("a validator has no public key"))?;
                marks.insert(channel_mark(&key, what), number(&row, 1, column)?);
            }
        }
        Ok(())
    }
}
