//! Changes, signatures and revocations.

use super::{CHANGES_MAX, Channel, Heard, Sent, Violation, violation};
use crate::commitment::{Balance, Change, Commitment};
use crate::ids::{PaymentHash, Preimage, RevocationHash, RevocationSecret, Sats, Side, Signature};
use crate::keys::ChannelKeys;
use crate::wire::Body;

/// What a signature of the peer brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Our answer: the commitment before is revoked.
    pub revocation: Body,
    /// How payments of ours ended: with their proof, or without.
    pub outcomes: Vec<(PaymentHash, Option<Preimage>)>,
}

impl Channel {
    /// Queues a payment; its number. An error says why it can't be.
    pub fn offer(&mut self, amount: Sats, hash: PaymentHash) -> Result<u64, String> {
        if !self.is_open() {
            return Err(match &self.stopped {
                Some(why) => format!("the channel has stopped: {why}"),
                None => "the channel is not open".into(),
            });
        }
        let outgoing = self.sent.iter().map(|sent| &sent.change).chain(&self.queue);
        let waiting: Sats = outgoing
            .filter_map(|change| match change {
                Change::Add { amount, .. } => Some(*amount),
                _ => None,
            })
            .sum();
        let under_way = self.balance.pending.len() + self.sent.len() + self.queue.len();
        if under_way >= CHANGES_MAX {
            return Err("too many payments are under way".into());
        }
        if amount == Sats(0) || *self.balance.of.at(self.side) < waiting + amount {
            return Err("there is not so much money on our side".into());
        }
        let id = self.next_id;
        self.next_id += 1;
        self.queue.push(Change::Add { id, amount, hash });
        Ok(id)
    }

    /// Queues the claim, or the refusal, of a payment that the peer offers and that is in both
    /// commitments. A claim's proof is kept, so that it also serves on the ledger.
    pub fn answer(&mut self, change: Change) {
        if let Change::Fulfill { id, preimage } = &change {
            self.claims.preimages.push((*id, *preimage));
        }
        self.queue.push(change);
    }

    /// Payments that the peer offers, that are in both commitments, and that we have not answered.
    pub fn unanswered(&self) -> Vec<(u64, PaymentHash)> {
        let answers = self.sent.iter().map(|sent| &sent.change).chain(&self.queue);
        let answered: Vec<u64> = answers
            .filter_map(|change| match change {
                Change::Fulfill { id, .. } | Change::Fail { id } => Some(*id),
                Change::Add { .. } => None,
            })
            .collect();
        let offered = self.balance.pending.iter().filter(|p| p.by != self.side);
        offered.filter(|p| !answered.contains(&p.id)).map(|p| (p.id, p.hash)).collect()
    }

    /// Signs the peer's next commitment, where there is something new and it has revoked the one
    /// before: our changes, then the signature.
    pub fn sign(&mut self, keys: &ChannelKeys) -> Vec<Body> {
        let news = !self.queue.is_empty() || self.taken.iter().any(|heard| heard.signed.is_none());
        if !news || self.signed != self.received || !self.may_sign() {
            return Vec::new();
        }
        let number = self.signed + 1;
        let queue = std::mem::take(&mut self.queue);
        self.sent.extend(queue.into_iter().map(|change| Sent { change, signed: number }));
        for heard in &mut self.taken {
            heard.signed.get_or_insert(number);
        }
        let commitment = self.their_next(number);
        let signature = keys.signing.sign(&commitment.digest());
        self.signed = number;
        self.last_signature = Some(signature);
        self.revoked_last = false;
        self.signing_messages()
    }

    /// The messages of our last signature: the changes that it covered first, and itself.
    pub(super) fn signing_messages(&self) -> Vec<Body> {
        let Some(signature) = self.last_signature else { return Vec::new() };
        let fresh = self.sent.iter().filter(|sent| sent.signed == self.signed);
        let mut messages: Vec<Body> = fresh.map(|sent| body(&sent.change)).collect();
        messages.push(Body::CommitmentSigned { number: self.signed, signature });
        messages
    }

    /// Takes the peer's signature of our next commitment with the changes before it, and revokes
    /// the one that we hold.
    pub fn take_signature(
        &mut self,
        keys: &ChannelKeys,
        changes: Vec<Change>,
        number: u64,
        signature: Signature,
    ) -> Result<Taken, Violation> {
        if number != self.revoked + 1 {
            return violation(format!("it signed commitment {number}, not {}", self.revoked + 1));
        }
        // What a copy of this node publishes now is this commitment: it is not revoked any more.
        if self.closing {
            return violation("it signed a commitment where the close was signed");
        }
        self.check_allowed(&changes)?;
        let outcomes = changes.iter().filter_map(|change| self.outcome(change)).collect();
        // What the peer has revoked with our changes in it, it has now signed into ours.
        let (folded, sent) =
            self.sent.iter().cloned().partition::<Vec<_>, _>(|sent| sent.signed <= self.received);
        self.sent = sent;
        for sent in folded {
            self.fold(self.side, &sent.change)?;
        }
        self.taken.extend(changes.into_iter().map(|change| Heard { change, signed: None }));
        let ours = Commitment {
            channel: self.id.clone(),
            owner: self.side,
            number,
            revocation: keys.revocation_hash(number),
            balance: self.with_taken()?,
        };
        if !self.their_key().verifies(&ours.digest(), &signature) {
            return violation(format!("the signature of commitment {number} is wrong"));
        }
        self.ours = ours;
        self.theirs_on_ours = signature;
        self.revoked = number;
        self.revoked_last = true;
        Ok(Taken { revocation: self.revocation_message(keys), outcomes })
    }

    /// The message of our last revocation.
    pub(super) fn revocation_message(&self, keys: &ChannelKeys) -> Body {
        let number = self.revoked - 1;
        let next = keys.revocation_hash(number + 2);
        Body::RevokeAndAck { number, secret: keys.secret(number), next }
    }

    /// Takes the peer's revocation; folds its changes that both commitments have now.
    pub fn take_revocation(
        &mut self,
        number: u64,
        secret: RevocationSecret,
        next: RevocationHash,
    ) -> Result<(), Violation> {
        if number != self.received || self.signed != self.received + 1 {
            return violation(format!("it revoked commitment {number} out of turn"));
        }
        if secret.hash() != self.revocations[0] || !self.claims.secrets.take(number, secret) {
            return violation(format!("the secret of commitment {number} is wrong"));
        }
        self.received += 1;
        self.revocations = [self.revocations[1], next];
        let (folded, taken) = self.taken.iter().cloned().partition::<Vec<_>, _>(|heard| {
            heard.signed.is_some_and(|signed| signed <= self.received)
        });
        self.taken = taken;
        for heard in folded {
            self.fold(self.side.other(), &heard.change)?;
        }
        Ok(())
    }

    /// The peer's next commitment: everything that both know of by then.
    fn their_next(&self, number: u64) -> Commitment {
        let balance = self.sent.iter().try_fold(
            self.with_taken().expect("taken changes were applied when they were taken"),
            |balance, sent| balance.after(self.side, &sent.change),
        );
        Commitment {
            channel: self.id.clone(),
            owner: self.side.other(),
            number,
            revocation: self.revocations[(number - self.received) as usize],
            balance: balance.expect("a change is queued only where it can be"),
        }
    }

    fn with_taken(&self) -> Result<Balance, Violation> {
        let mut balance = self.balance.clone();
        for heard in &self.taken {
            balance = after(balance, self.side.other(), &heard.change)?;
        }
        Ok(balance)
    }

    fn fold(&mut self, by: Side, change: &Change) -> Result<(), Violation> {
        self.balance = after(self.balance.clone(), by, change)?;
        if let Change::Fulfill { id, .. } | Change::Fail { id } = change
            && by == self.side
        {
            self.claims.preimages.retain(|(other, _)| other != id);
        }
        Ok(())
    }

    /// How a payment of ours ends by a change of the peer.
    fn outcome(&self, change: &Change) -> Option<(PaymentHash, Option<Preimage>)> {
        let (id, proof) = match change {
            Change::Add { .. } => return None,
            Change::Fulfill { id, preimage } => (*id, Some(*preimage)),
            Change::Fail { id } => (*id, None),
        };
        Some((self.balance.find(self.side, id)?.hash, proof))
    }

    /// After its shutdown the peer offers nothing new; it answers only what both commitments have.
    fn check_allowed(&self, changes: &[Change]) -> Result<(), Violation> {
        let offered = |id| self.balance.find(self.side, id).is_some();
        let mut adds = self.balance.pending.len() + self.taken.len();
        for change in changes {
            match change {
                Change::Add { .. } if self.shutdown.theirs => {
                    return violation("it offered a payment after its shutdown");
                }
                Change::Add { .. } => adds += 1,
                Change::Fulfill { id, .. } | Change::Fail { id } if !offered(*id) => {
                    return violation(format!("it answered payment {id}, which is not in both"));
                }
                Change::Fulfill { .. } | Change::Fail { .. } => {}
            }
        }
        if adds > 4 * CHANGES_MAX { violation("it offered too many payments") } else { Ok(()) }
    }
}

fn after(balance: Balance, by: Side, change: &Change) -> Result<Balance, Violation> {
    let wrong = || Violation(format!("a change of {by:?} can't be: {change:?}"));
    balance.after(by, change).ok_or_else(wrong)
}

fn body(change: &Change) -> Body {
    match change {
        Change::Add { id, amount, hash } => {
            Body::UpdateAdd { id: *id, amount: *amount, hash: *hash }
        }
        Change::Fulfill { id, preimage } => Body::UpdateFulfill { id: *id, preimage: *preimage },
        Change::Fail { id } => Body::UpdateFail { id: *id },
    }
}
