//! The slots of a vault: listed, added, removed.

use super::Vault;
use super::keys::{self, SLOTS_MAX, Secret, SlotDoc, SlotInfo};
use crate::error::{Error, Remedy, Result};

impl Vault {
    /// The key slots, by id.
    pub fn slots(&self) -> Result<Vec<SlotInfo>> {
        Ok(self.slot_documents()?.iter().map(SlotDoc::info).collect())
    }

    /// Adds a slot; nothing is sealed again.
    pub fn add_slot(&self, secret: &Secret, label: &str) -> Result<SlotInfo> {
        if keys::slot_names(&self.store)?.len() >= SLOTS_MAX {
            return Err(Error::conflict(format!("the vault has {SLOTS_MAX} key slots already"))
                .with_remedy(Remedy::RemoveKey));
        }
        let slot = SlotDoc::wrap(secret, label, self.id(), &self.master, &self.env)?;
        if !self.store.put_new(&slot.object_name(), slot.to_bytes()?)? {
            return Err(Error::bug("two key slots with one random id"));
        }
        Ok(slot.info())
    }

    /// Removes a slot by its id or a unique prefix of it. The last one can't be removed. A copy of
    /// the vault's key that somebody made with the slot is not revoked.
    pub fn remove_slot(&self, slot: &str) -> Result<SlotInfo> {
        let slots = self.slot_documents()?;
        let mut fitting =
            slots.iter().filter(|known| known.info().slot.to_string().starts_with(slot));
        let (Some(found), None) = (fitting.next(), fitting.next()) else {
            return Err(Error::not_found(format!("`{slot}` names no slot, or more than one"))
                .with_remedy(Remedy::ListKeys));
        };
        if slots.len() == 1 {
            return Err(Error::conflict("the last key slot can't be removed")
                .with_entry(found.object_name())
                .with_remedy(
                    "add another one first: without a slot nothing in the vault can be opened",
                ));
        }
        self.store.delete(&found.object_name())?;
        Ok(found.info())
    }

    /// The key slots as stored, each made under this vault's key.
    pub(crate) fn slot_documents(&self) -> Result<Vec<SlotDoc>> {
        let mut slots = Vec::new();
        for name in keys::slot_names(&self.store)? {
            let slot = SlotDoc::parse(&name, &self.store.get(&name)?)?;
            slot.verify(&self.master)?;
            slots.push(slot);
        }
        Ok(slots)
    }
}
