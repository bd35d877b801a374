//! The ledger that channels stand on: funding outputs, and the one transaction that spends each. A
//! pure state machine; what is submitted confirms with the next block.
//!
//! Whoever shows the revocation secret of a published commitment within the delay gives all of the
//! channel to the party that was cheated.

use std::collections::{BTreeMap, BTreeSet};

use highwater::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::commitment::{Balance, SignedClose, SignedCommitment};
use crate::ids::{
    Both, ChannelId, PeerId, Preimage, PublicKey, RevocationSecret, Sats, Side, Signature,
};

/// Blocks in which a published commitment can be punished, and its payments claimed.
pub const DELAY_BLOCKS: u64 = 6;

/// A funding output: two keys, two parties.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Funding {
    /// Its name.
    pub channel: ChannelId,
    /// The keys whose signatures spend it.
    pub keys: Both<PublicKey>,
    /// Who is paid.
    pub parties: Both<PeerId>,
    /// How much.
    pub capacity: Sats,
}

/// What can be submitted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Transaction {
    /// Makes a funding output. (The ledger asks nobody for the money: it is a toy.)
    Fund(Funding),
    /// Spends one by the agreement of both parties.
    Close(SignedClose),
    /// Spends one by the commitment of one party.
    Commit(SignedCommitment),
    /// Shows that a published commitment is revoked.
    Punish {
        /// The channel.
        channel: ChannelId,
        /// The secret behind the published commitment.
        secret: RevocationSecret,
    },
    /// Claims a payment of a published commitment.
    Claim {
        /// The channel.
        channel: ChannelId,
        /// Who offered it.
        by: Side,
        /// The payment.
        id: u64,
        /// The proof.
        preimage: Preimage,
    },
}

/// How a funding output was spent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Spend {
    /// By both.
    Close(SignedClose),
    /// By one.
    Commit(SignedCommitment),
}

/// What the ledger shows of a channel.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The funding output is confirmed.
    pub funded: bool,
    /// How it was spent.
    pub spend: Option<Spend>,
    /// The spend is confirmed.
    pub confirmed: bool,
    /// The published commitment was punished.
    pub punished: bool,
    /// What each party got in the end.
    pub paid: Option<Both<Sats>>,
}

/// The ledger.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    height: u64,
    outputs: BTreeMap<ChannelId, Output>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    funding: Funding,
    funded: bool,
    spend: Option<Spend>,
    /// The block that confirmed the spend.
    confirmed: Option<u64>,
    punished: bool,
    claimed: BTreeSet<(Side, u64)>,
    paid: Option<Both<Sats>>,
}

impl Ledger {
    /// The number of the last block.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// What it shows of a channel; nothing where it knows none.
    pub fn view(&self, channel: &ChannelId) -> View {
        let Some(output) = self.outputs.get(channel) else { return View::default() };
        View {
            funded: output.funded,
            spend: output.spend.clone(),
            confirmed: output.confirmed.is_some(),
            punished: output.punished,
            paid: output.paid,
        }
    }

    /// What a party was paid from all its channels.
    pub fn paid(&self, party: &PeerId) -> Sats {
        let mut sum = Sats(0);
        for output in self.outputs.values() {
            let Some(paid) = &output.paid else { continue };
            for side in [Side::Opener, Side::Acceptor] {
                if output.funding.parties.at(side) == party {
                    sum += *paid.at(side);
                }
            }
        }
        sum
    }

    /// Takes a transaction. The same one twice is taken once; of two that spend one output the first
    /// wins.
    pub fn submit(&mut self, transaction: Transaction) -> Result<()> {
        match transaction {
            Transaction::Fund(funding) => self.fund(funding),
            Transaction::Close(signed) => {
                let digest = signed.close.digest();
                let of = signed.close.of;
                let output = self.output(&signed.close.channel)?;
                let balance = Balance { of, pending: Vec::new() };
                output.spend(Spend::Close(signed.clone()), &digest, &signed.signatures, &balance)
            }
            Transaction::Commit(signed) => {
                let digest = signed.commitment.digest();
                let output = self.output(&signed.commitment.channel)?;
                let spend = Spend::Commit(signed.clone());
                output.spend(spend, &digest, &signed.signatures, &signed.commitment.balance)
            }
            Transaction::Punish { channel, secret } => self.output(&channel)?.punish(&secret),
            Transaction::Claim { channel, by, id, preimage } => {
                self.output(&channel)?.claim(by, id, &preimage)
            }
        }
    }

    /// Adds blocks: what was submitted is confirmed, and what has waited for the delay is paid.
    pub fn advance(&mut self, blocks: u64) {
        for _ in 0..blocks {
            self.height += 1;
            for output in self.outputs.values_mut() {
                output.block(self.height);
            }
        }
    }

    fn fund(&mut self, funding: Funding) -> Result<()> {
        if let Some(output) = self.outputs.get(&funding.channel) {
            if output.funding == funding {
                return Ok(());
            }
            return Err(Error::conflict("another output has this name")
                .with_entry(funding.channel.as_str()));
        }
        let channel = funding.channel.clone();
        let output = Output {
            funding,
            funded: false,
            spend: None,
            confirmed: None,
            punished: false,
            claimed: BTreeSet::new(),
            paid: None,
        };
        self.outputs.insert(channel, output);
        Ok(())
    }

    fn output(&mut self, channel: &ChannelId) -> Result<&mut Output> {
        self.outputs.get_mut(channel).ok_or_else(|| {
            Error::not_found("the ledger has no such output").with_entry(channel.as_str())
        })
    }
}

impl Output {
    fn spend(
        &mut self,
        spend: Spend,
        digest: &[u8; 32],
        signatures: &Both<Signature>,
        balance: &Balance,
    ) -> Result<()> {
        let signed = |side| self.funding.keys.at(side).verifies(digest, signatures.at(side));
        if !signed(Side::Opener) || !signed(Side::Acceptor) {
            return Err(Error::input("a signature is missing or wrong"));
        }
        if balance.total() != self.funding.capacity {
            return Err(Error::input("it pays another sum than the output holds"));
        }
        match &self.spend {
            Some(first) if *first == spend => Ok(()),
            Some(_) => Err(Error::conflict("the output is spent already")
                .with_entry(self.funding.channel.as_str())),
            None => {
                self.spend = Some(spend);
                Ok(())
            }
        }
    }

    /// The published commitment, once confirmed and as long as it is not paid.
    fn open_commitment(&self) -> Result<&SignedCommitment> {
        match &self.spend {
            Some(Spend::Commit(signed)) if self.confirmed.is_some() && self.paid.is_none() => {
                Ok(signed)
            }
            _ => Err(Error::conflict("there is no confirmed commitment within its delay")
                .with_entry(self.funding.channel.as_str())),
        }
    }

    fn punish(&mut self, secret: &RevocationSecret) -> Result<()> {
        if secret.hash() != self.open_commitment()?.commitment.revocation {
            return Err(Error::input("the secret is not that of the published commitment"));
        }
        self.punished = true;
        Ok(())
    }

    fn claim(&mut self, by: Side, id: u64, preimage: &Preimage) -> Result<()> {
        let balance = &self.open_commitment()?.commitment.balance;
        let pending = balance.find(by, id).ok_or_else(|| Error::not_found("no such payment"))?;
        if preimage.hash() != pending.hash {
            return Err(Error::input("the preimage is not that of the payment"));
        }
        self.claimed.insert((by, id));
        Ok(())
    }

    fn block(&mut self, height: u64) {
        self.funded = true;
        let Some(spend) = &self.spend else { return };
        let confirmed = *self.confirmed.get_or_insert(height);
        if self.paid.is_some() {
            return;
        }
        match spend {
            Spend::Close(signed) => self.paid = Some(signed.close.of),
            Spend::Commit(signed) if height >= confirmed + DELAY_BLOCKS => {
                self.paid = Some(self.settle(signed));
            }
            Spend::Commit(_) => {}
        }
    }

    /// Who gets what of a published commitment: all to the cheated, else a payment to who claimed
    /// it, or back.
    fn settle(&self, signed: &SignedCommitment) -> Both<Sats> {
        let Balance { of, pending } = &signed.commitment.balance;
        let owner = signed.commitment.owner;
        if self.punished {
            return Both::of(owner, Sats(0), self.funding.capacity);
        }
        let mut paid = *of;
        for payment in pending {
            let claimed = self.claimed.contains(&(payment.by, payment.id));
            let to = if claimed { payment.by.other() } else { payment.by };
            *paid.at_mut(to) += payment.amount;
        }
        paid
    }
}
