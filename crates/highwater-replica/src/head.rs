//! The head: the one key that whoever writes must hold, and what it says of all the others.

use highwater::ids::Time;
use highwater::{Error, Result};
use serde::{Deserialize, Serialize};

use super::digest::Sum;
use super::keys::{EPOCH_BYTES, ReplicaKeys};

/// Names of heads begin with it.
pub(super) const HEADS: &str = "head.";
/// Names of parts begin with it.
const PARTS: &str = "p.";
/// There from the first owner on, put with version 0, so that two first owners can't both win.
pub(super) const ROOT: &str = "root";

/// How many replaced owners a head remembers.
const BREAKS_MAX: usize = 64;

/// What a head says of the values beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadState {
    /// They are not all there yet.
    Filling,
    /// They are one instant of the owner's store.
    Open,
    /// The same, and the owner has ended in good order.
    Released,
}

/// A head, as it is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// Rises with each start of an owner.
    pub(super) epoch: u64,
    /// Who, for people.
    pub(super) owner: String,
    pub(super) since: Time,
    /// The put that wrote it.
    #[serde(with = "hex::serde")]
    pub(super) put: [u8; 16],
    /// The version that the server gives it by that put.
    pub(super) version: i64,
    /// The last write of the owner's store that is in it.
    pub(super) seq: u64,
    /// All values.
    pub(super) sum: Sum,
    pub(super) state: HeadState,
    /// Why it was taken over, where it was.
    pub(super) reason: Option<String>,
    /// A transaction that no put takes: which parts of it lie beside the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<Parts>,
    /// Where owners were replaced by what the server had of theirs, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) breaks: Vec<Break>,
}

/// Parts of a transaction on the server, each a value of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parts {
    #[serde(with = "hex::serde")]
    pub(super) id: [u8; 16],
    /// The number of the first part that is there.
    pub(super) from: u64,
    /// One past the number of the last part.
    pub(super) to: u64,
    /// Whether the transaction counts: then the values are those of the head once all parts are applied.
    /// Else they are as if it had never begun.
    pub(super) valid: bool,
}

impl Parts {
    /// The name of a part on the server.
    pub(super) fn name(&self, number: u64) -> String {
        format!("{PARTS}{}.{number}", hex::encode(self.id))
    }
}

/// An owner of this epoch, or an earlier one, may have written more than this: the server never had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Break {
    /// The epoch of the owner that was replaced.
    pub epoch: u64,
    /// The last write of that owner's that the server had.
    pub seq: u64,
}

impl Head {
    /// Where the next owner begins with what the server has, not with the store of the last one.
    pub(super) fn add_break(&mut self) {
        self.breaks.push(Break { epoch: self.epoch, seq: self.seq });
        // Two of the oldest in one: epochs between them are held to the earlier write.
        if self.breaks.len() > BREAKS_MAX {
            let oldest = self.breaks.remove(0);
            self.breaks[0].seq = oldest.seq;
        }
    }
}

/// A head and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Placed {
    pub(super) name: String,
    pub(super) head: Head,
}

impl Placed {
    pub(super) fn sealed(&self, keys: &ReplicaKeys) -> Result<Vec<u8>> {
        let plain = serde_json::to_vec(&self.head)
            .map_err(|error| Error::bug("a head can't be written").with_source(error))?;
        keys.seal_document(&self.name, &plain)
    }

    /// Opens a head that the server gave with `version`.
    ///
    /// # Errors
    /// Denied where these keys don't open it; corrupt where the server gives it another version than its
    /// owner did.
    pub(super) fn open(
        keys: &ReplicaKeys,
        name: &str,
        version: i64,
        sealed: &[u8],
    ) -> Result<Placed> {
        let plain = keys.open_document(name, sealed)?;
        let head: Head = serde_json::from_slice(&plain).map_err(|error| {
            Error::corrupt(format!("the head on the server is malformed: {error}")).with_entry(name)
        })?;
        if head.version != version {
            return Err(Error::corrupt(format!(
                "the server gives the head version {version}, its owner gave it {}",
                head.version
            ))
            .with_entry(name));
        }
        Ok(Placed { name: name.to_owned(), head })
    }

    /// Who holds it, since when, and why.
    pub(super) fn told(&self) -> String {
        let Head { owner, since, epoch, reason, .. } = &self.head;
        match reason {
            Some(reason) => format!("{owner} has it since {since}, as epoch {epoch}: {reason}"),
            None => format!("{owner} has it since {since}, as epoch {epoch}"),
        }
    }
}

/// The name of an epoch's head.
pub(super) fn name_of(id: &[u8; EPOCH_BYTES]) -> String {
    format!("{HEADS}{}", hex::encode(id))
}

/// The epoch that a head is named after.
pub(super) fn id_of(name: &str) -> Result<[u8; EPOCH_BYTES]> {
    let digits = name.strip_prefix(HEADS).unwrap_or_default();
    let mut id = [0; EPOCH_BYTES];
    hex::decode_to_slice(digits, &mut id)
        .map_err(|_| Error::corrupt("a head has a name that no owner gave").with_entry(name))?;
    Ok(id)
}
