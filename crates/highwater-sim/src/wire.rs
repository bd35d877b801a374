//! What two nodes say to each other, and how it stands on the wire: a length of four bytes, then JSON.

use std::io::{Read, Write};

use highwater::{Error, Result};
use highwater_guard::Report;
use serde::{Deserialize, Serialize};

use crate::ids::{
    Both, ChannelId, PaymentHash, Preimage, PublicKey, RevocationHash, RevocationSecret, Sats,
    Signature,
};

/// A message is no longer than this.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// A message about one channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The channel.
    pub channel: ChannelId,
    /// What is said.
    pub body: Body,
}

/// What is said about a channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Body {
    /// The opener offers a channel.
    Open {
        /// Its key for the channel.
        key: PublicKey,
        /// Who has how much at first.
        balance: Both<Sats>,
        /// The hashes of its first two revocation secrets.
        revocations: [RevocationHash; 2],
    },
    /// The acceptor agrees.
    Accept {
        /// Its key for the channel.
        key: PublicKey,
        /// The hashes of its first two revocation secrets.
        revocations: [RevocationHash; 2],
    },
    /// The opener has signed the acceptor's first commitment.
    FundingCreated {
        /// Its signature.
        signature: Signature,
    },
    /// The acceptor has signed the opener's first commitment.
    FundingSigned {
        /// Its signature.
        signature: Signature,
    },
    /// The funding output is confirmed.
    Ready,
    /// Where the sender stands: the first word about a channel in each session.
    Reestablish(Reestablish),
    /// Offers a payment.
    UpdateAdd {
        /// Its number among the sender's.
        id: u64,
        /// How much.
        amount: Sats,
        /// Whose preimage claims it.
        hash: PaymentHash,
    },
    /// Claims a payment.
    UpdateFulfill {
        /// The payment.
        id: u64,
        /// The proof.
        preimage: Preimage,
    },
    /// Gives up a payment.
    UpdateFail {
        /// The payment.
        id: u64,
    },
    /// Signs the receiver's commitment of that number, with all updates before it.
    CommitmentSigned {
        /// The number.
        number: u64,
        /// The signature.
        signature: Signature,
    },
    /// Revokes the sender's commitment of that number.
    RevokeAndAck {
        /// The number.
        number: u64,
        /// What revokes it.
        secret: RevocationSecret,
        /// The hash of the secret of `number + 2`.
        next: RevocationHash,
    },
    /// The sender has lost all that it knew of the channel: it can neither sign nor publish
    /// anything. It tells no number, since it has none.
    Lost,
    /// No new payments: let us close.
    Shutdown,
    /// Signs the cooperative close, once nothing is under way.
    ClosingSigned {
        /// The signature.
        signature: Signature,
    },
}

/// Where the sender stands, as in BOLT 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reestablish {
    /// The number of the commitment whose signature the sender expects next.
    pub next_commitment: u64,
    /// The number of the receiver's commitment whose revocation the sender expects next.
    pub next_revocation: u64,
}

impl From<Reestablish> for Report {
    /// A signature is taken and the commitment before it revoked in one step; number 0 was signed
    /// while opening and is not counted.
    fn from(reestablish: Reestablish) -> Report {
        Report {
            revocations_held: reestablish.next_revocation,
            signatures_taken: reestablish.next_commitment.saturating_sub(1),
        }
    }
}

/// Writes one value as a frame.
pub fn write_frame(writer: &mut impl Write, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::bug("a message can't be written as JSON").with_source(error))?;
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| Error::bug("a message is longer than a frame"))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&bytes);
    writer.write_all(&frame).and_then(|()| writer.flush()).map_err(|e| Error::io("writing", e))
}

/// Reads one frame; `None` where the other side has ended between two.
pub fn read_frame<T: for<'de> Deserialize<'de>>(reader: &mut impl Read) -> Result<Option<T>> {
    let mut length = [0; 4];
    match reader.read(&mut length[..1]).map_err(|error| Error::io("reading", error))? {
        0 => return Ok(None),
        _ => reader.read_exact(&mut length[1..]).map_err(|e| Error::io("reading", e))?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(Error::input("a frame is longer than a message can be"));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).map_err(|error| Error::io("reading", error))?;
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::input("a frame is not a message").with_source(error))?;
    Ok(Some(value))
}
