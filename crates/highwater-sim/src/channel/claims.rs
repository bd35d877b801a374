//! What stays allowed in quarantine: taking what is ours from a *confirmed* commitment of the peer.

use serde::{Deserialize, Serialize};

use crate::ids::{ChannelId, Preimage, Side};
use crate::keys::SecretStore;
use crate::ledger::{Spend, Transaction, View};

/// Punishing is not speaking: this can neither sign nor publish a commitment, nor tell a number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    pub(super) channel: ChannelId,
    pub(super) side: Side,
    /// The peer's revocation secrets.
    pub(super) secrets: SecretStore,
    /// Proofs of payments that the peer offers, by their numbers.
    pub(super) preimages: Vec<(u64, Preimage)>,
}

impl Claims {
    /// The channel.
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// What to submit, given what the ledger shows.
    pub fn answer(&self, view: &View) -> Vec<Transaction> {
        let Some(Spend::Commit(signed)) = &view.spend else { return Vec::new() };
        if !view.confirmed || view.paid.is_some() {
            return Vec::new();
        }
        let commitment = &signed.commitment;
        if commitment.owner != self.side
            && !view.punished
            && let Some(secret) = self.secrets.secret(commitment.number)
        {
            return vec![Transaction::Punish { channel: self.channel.clone(), secret }];
        }
        let by = self.side.other();
        let claimable = self.preimages.iter().filter(|(id, preimage)| {
            let pending = commitment.balance.find(by, *id);
            pending.is_some_and(|pending| pending.hash == preimage.hash())
        });
        claimable
            .map(|(id, preimage)| Transaction::Claim {
                channel: self.channel.clone(),
                by,
                id: *id,
                preimage: *preimage,
            })
            .collect()
    }
}
