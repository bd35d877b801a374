//! How a channel begins: an offer, keys and first revocation hashes of both sides, and a signature
//! of each under the other's commitment 0. Only then may the funding output be made.

use serde::{Deserialize, Serialize};

use super::{Channel, Claims, Flags, Violation, violation};
use crate::commitment::{Balance, Commitment};
use crate::ids::{Both, ChannelId, PeerId, PublicKey, RevocationHash, Sats, Side, Signature};
use crate::keys::{ChannelKeys, NodeKeys, SecretStore, tagged};
use crate::ledger::Funding;

/// A channel that we have offered. Nothing is signed, so nothing of it can be punished.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Its name.
    pub id: ChannelId,
    /// The node that we have offered it to.
    pub peer: PeerId,
    /// The index of our keys.
    pub index: u64,
    /// Who has how much at first.
    pub balance: Both<Sats>,
}

impl Offer {
    /// An offer under the next index of our keys; the index names it.
    pub fn new(keys: &NodeKeys, peer: PeerId, index: u64, balance: Both<Sats>) -> Offer {
        let own = keys.channel(index).signing.public();
        let name = tagged("highwater-sim/channel-id", &[&own.0, &peer.0]);
        let bytes = name[..16].try_into().expect("sixteen of 32 bytes");
        Offer { id: ChannelId::from_bytes(bytes), peer, index, balance }
    }
}

/// What both sides know of a channel before the first signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Its name.
    pub id: ChannelId,
    /// The other party.
    pub peer: PeerId,
    /// Which party we are.
    pub side: Side,
    /// The index of our keys.
    pub index: u64,
    /// Who has how much at first.
    pub balance: Both<Sats>,
    /// The peer's key.
    pub their_key: PublicKey,
    /// The hashes of the peer's first two secrets.
    pub revocations: [RevocationHash; 2],
}

impl Terms {
    /// Our signature of the peer's commitment 0.
    pub fn sign(&self, keys: &ChannelKeys) -> Signature {
        keys.signing.sign(&self.first(self.side.other(), self.revocations[0]).digest())
    }

    /// The channel, once the peer has signed our commitment 0.
    pub fn channel(
        self,
        node: &NodeKeys,
        signature: Signature,
        epoch: u64,
    ) -> Result<Channel, Violation> {
        let keys = node.channel(self.index);
        let ours = self.first(self.side, keys.revocation_hash(0));
        if !self.their_key.verifies(&ours.digest(), &signature) {
            return violation("the signature of commitment 0 is wrong");
        }
        let balance = ours.balance.clone();
        let funding = Funding {
            channel: self.id.clone(),
            keys: Both::of(self.side, keys.signing.public(), self.their_key),
            parties: Both::of(self.side, node.peer_id(), self.peer),
            capacity: balance.total(),
        };
        let claims = Claims {
            channel: self.id.clone(),
            side: self.side,
            secrets: SecretStore::default(),
            preimages: Vec::new(),
        };
        Ok(Channel {
            id: self.id,
            peer: self.peer,
            side: self.side,
            index: self.index,
            funding,
            signed: 0,
            revoked: 0,
            received: 0,
            closing: false,
            epoch,
            balance,
            sent: Vec::new(),
            taken: Vec::new(),
            queue: Vec::new(),
            next_id: 0,
            ours,
            theirs_on_ours: signature,
            last_signature: None,
            revoked_last: false,
            revocations: self.revocations,
            ready: Flags::default(),
            shutdown: Flags::default(),
            close_signature: None,
            published: false,
            stopped: None,
            claims,
        })
    }

    fn first(&self, owner: Side, revocation: RevocationHash) -> Commitment {
        let balance = Balance { of: self.balance, pending: Vec::new() };
        Commitment { channel: self.id.clone(), owner, number: 0, revocation, balance }
    }
}

impl Channel {
    /// We have seen the funding output confirmed; `true` the first time.
    pub fn see_funded(&mut self) -> bool {
        !std::mem::replace(&mut self.ready.ours, true)
    }

    /// The peer has seen it.
    pub fn take_ready(&mut self) {
        self.ready.theirs = true;
    }

    /// We have seen the funding output confirmed.
    pub fn is_funded(&self) -> bool {
        self.ready.ours
    }
}
