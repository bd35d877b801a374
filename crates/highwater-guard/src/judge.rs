//! The table of verdicts, as one pure function. The rows are asked in their order.

use serde::{Deserialize, Serialize};

use crate::numbers::{Evidence, FundingSpent, Ours, Policy, Report, Witness};

/// What a node may do with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The chain has decided: claim and punish, nothing else.
    Closed,
    /// It is proven, or possible, that more has left than is remembered: never sign, never publish.
    Blocked(Reason),
    /// All that has left is remembered: go on.
    Clear(Basis),
    /// Not known yet: stay silent.
    Wait(Reason),
}

/// By whose word a channel is clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The witness's: no trust in the peer is needed.
    Witness,
    /// The peer's.
    Peer,
}

/// Why a channel is not clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The peer has a revocation that we don't remember.
    RevocationLost,
    /// The peer has taken a signature that we don't remember.
    SignatureLost,
    /// The witness remembers more than we do.
    WitnessAhead,
    /// Another copy of this node has moved the channel since: the numbers may be equal, what they
    /// number is not.
    MovedElsewhere,
    /// A backup remembers more than we do.
    BackupAhead,
    /// The witness knows a channel that we lack.
    ChannelLacking,
    /// Our own numbers can't be: `L ≤ S ≤ L + 1` does not hold.
    NumbersImpossible,
    /// The peer remembers less than it has told us before.
    PeerForgot,
    /// The witness remembers less than it must.
    WitnessForgot,
    /// Only a witness that is ours and was never switched off could clear the channel.
    WitnessNeeded,
    /// The node can't tell how many commitments it has signed.
    SignaturesUnknown,
    /// The funding output is being spent, not confirmed yet: it may be by us, and forgotten.
    SpendUnconfirmed,
    /// Nothing was heard yet.
    NothingHeard,
}

/// The verdict on a channel, from what we remember and what others say.
///
/// The first row that matches decides. The chain comes first; then what condemns, by whomever it is
/// told; then what clears; a peer that has forgotten neither clears nor condemns.
pub fn judge(ours: &Ours, evidence: &Evidence) -> Verdict {
    if evidence.chain == Some(FundingSpent::Confirmed) {
        return Verdict::Closed;
    }
    if let Some(reason) = condemned(ours, evidence) {
        return Verdict::Blocked(reason);
    }
    let trusted = evidence.witness.filter(|witness| witness.owned && witness.continuous);
    if trusted.is_some_and(|witness| remembers_all(ours, &witness)) {
        return clear(ours, Basis::Witness);
    }
    let forgot = trusted.is_some_and(|witness| witness_forgot(ours, &witness));
    let Some(report) = evidence.report else {
        return Verdict::Wait(if forgot { Reason::WitnessForgot } else { Reason::NothingHeard });
    };
    if report.revocations_held.saturating_add(1) < ours.revoked
        || report.signatures_taken < ours.received
    {
        return Verdict::Wait(Reason::PeerForgot);
    }
    match (evidence.policy, ours.signed) {
        (Policy::Witness, _) if forgot => Verdict::Wait(Reason::WitnessForgot),
        (Policy::Witness, _) => Verdict::Wait(Reason::WitnessNeeded),
        (Policy::Peer, None) => Verdict::Wait(Reason::SignaturesUnknown),
        (Policy::Peer, Some(_)) if spend_forgotten(ours, evidence) => {
            Verdict::Wait(Reason::SpendUnconfirmed)
        }
        (Policy::Peer, Some(_)) => clear(ours, Basis::Peer),
    }
}

/// Whether the witness remembers less than it must: it is written before anything leaves, so it can
/// lack the last step of each number and no more. It has lost data, or another one was asked.
pub fn witness_forgot(ours: &Ours, witness: &Witness) -> bool {
    let behind = |mine: u64, its: u64| its.saturating_add(1) < mine;
    behind(signed_least(ours), witness.signed)
        || behind(ours.revoked, witness.revoked)
        || behind(ours.received, witness.received)
}

/// Whether the output is being spent, perhaps by a commitment of ours whose publication was lost with
/// the newer state: the peer knows nothing of it, and the next revocation would make it punishable.
/// A witness would know: `closing` is raised before anything is published.
fn spend_forgotten(ours: &Ours, evidence: &Evidence) -> bool {
    evidence.chain == Some(FundingSpent::Unconfirmed) && !ours.closing
}

/// Why more has left than is remembered, where somebody shows it.
fn condemned(ours: &Ours, evidence: &Evidence) -> Option<Reason> {
    if let Some(Report { revocations_held, signatures_taken }) = evidence.report {
        if revocations_held > ours.revoked {
            return Some(Reason::RevocationLost);
        }
        if signatures_taken > signed_most(ours) {
            return Some(Reason::SignatureLost);
        }
    }
    if let Some(witness) = evidence.witness {
        let Witness { signed, revoked, received, closing, epoch, .. } = witness;
        if ahead(ours, signed, revoked, received, closing) {
            return Some(Reason::WitnessAhead);
        }
        if epoch > ours.epoch {
            return Some(Reason::MovedElsewhere);
        }
    }
    let Ours { signed, revoked, received, closing, .. } = evidence.backup?;
    ahead(ours, signed.unwrap_or(0), revoked, received, closing).then_some(Reason::BackupAhead)
}

fn ahead(ours: &Ours, signed: u64, revoked: u64, received: u64, closing: bool) -> bool {
    signed > signed_most(ours)
        || revoked > ours.revoked
        || received > ours.received
        || (closing && !ours.closing)
}

/// Each number of the witness is ours or ours − 1, whatever `S` is where the node can't tell.
fn remembers_all(ours: &Ours, witness: &Witness) -> bool {
    let near = |mine: u64, its: u64| its == mine || its.checked_add(1) == Some(mine);
    near(signed_least(ours), witness.signed)
        && near(signed_most(ours), witness.signed)
        && near(ours.revoked, witness.revoked)
        && near(ours.received, witness.received)
}

/// Numbers that can't be are never cleared, whoever vouches for them.
fn clear(ours: &Ours, basis: Basis) -> Verdict {
    let possible = (signed_least(ours)..=signed_most(ours))
        .all(|signed| signed >= ours.received && signed - ours.received <= 1);
    if possible { Verdict::Clear(basis) } else { Verdict::Blocked(Reason::NumbersImpossible) }
}

fn signed_least(ours: &Ours) -> u64 {
    ours.signed.unwrap_or(ours.received)
}

fn signed_most(ours: &Ours) -> u64 {
    ours.signed.unwrap_or(ours.received.saturating_add(1))
}
