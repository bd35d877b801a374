//! What must hold whenever something leaves a node.

use std::collections::{BTreeMap, BTreeSet};

use highwater::guard::{Witness, WitnessRecord};
use highwater_guard::Channel as _;

use super::world::{At, Outcome, World, numbers, rank};
use super::{Breach, Kind};
use crate::channel::Channel;
use crate::ids::{ChannelId, PublicKey, Side, Signature};
use crate::ledger::{Spend, Transaction};
use crate::node::{ChannelState, Effect};
use crate::wire::{Body, Message};

/// A party's end of a channel.
type End = (usize, ChannelId);

/// What the world has seen, with all the memory that the nodes may have lost.
#[derive(Default)]
pub(super) struct WorldWatch {
    /// Signatures of the peer's commitments, by number, and of the close.
    signed: BTreeMap<(usize, ChannelId, Option<u64>), Signature>,
    /// Commitments that a party has revoked, counted: what has left, and what the peer has.
    pub(super) revoked_left: BTreeMap<End, u64>,
    revoked_held: BTreeMap<End, u64>,
    published: BTreeMap<End, u64>,
    /// The furthest state of each end that was ever durable.
    pub(super) latest: BTreeMap<End, Channel>,
    /// Which channel a key of a party is for.
    keys: BTreeMap<PublicKey, ChannelId>,
    /// The ends that have been condemned, and those that went on after a quarantine.
    pub(super) blocked: BTreeSet<End>,
    waiting: BTreeSet<End>,
}

fn breach<T>(kind: Kind, what: impl Into<String>) -> Outcome<T> {
    Err(Breach { kind, what: what.into() })
}

impl World {
    /// Something is about to leave a copy.
    pub(super) fn watch_effect(&mut self, at: At, effect: &Effect) -> Outcome {
        if !self.honest(at.0) {
            return Ok(());
        }
        match effect {
            Effect::Send(_, message) => self.watch_message(at, message),
            Effect::Submit(Transaction::Commit(signed)) => {
                let Some(story) = self.channels.get(&signed.commitment.channel) else {
                    return breach(Kind::Spoke, "a commitment of no channel was submitted");
                };
                if story.ends[side(signed.commitment.owner)] != at.0 {
                    return breach(Kind::Spoke, format!("{at:?} published its peer's commitment"));
                }
                let channel = signed.commitment.channel.clone();
                self.silent(at, &channel)?;
                self.watch_published(at, channel, signed.commitment.number)
            }
            Effect::Submit(Transaction::Close(signed)) => self.silent(at, &signed.close.channel),
            Effect::Submit(_) => Ok(()),
        }
    }

    fn watch_message(&mut self, at: At, message: &Message) -> Outcome {
        let Message { channel, body } = message;
        self.silent(at, channel)?;
        let end = (at.0, channel.clone());
        match body {
            Body::Reestablish(_) => self.watch_memory(at, channel)?,
            Body::Open { key, .. } | Body::Accept { key, .. } => {
                let witnessed = self.witnessed();
                let first = self.watch.keys.entry(*key).or_insert_with(|| channel.clone());
                if first != channel && witnessed {
                    let what = format!("{at:?} uses a key for {first} and for {channel}");
                    return breach(Kind::SignedTwice, what);
                }
            }
            Body::CommitmentSigned { number, signature } => {
                self.watch_signature(at, channel, Some(*number), *signature)?;
                self.watch_order(at, channel, |its| its.signed >= *number)?;
            }
            Body::ClosingSigned { signature } => {
                self.watch_signature(at, channel, None, *signature)?;
                self.watch_order(at, channel, |its| its.closing)?;
            }
            Body::RevokeAndAck { number, .. } => {
                let revoked = number + 1;
                let new = self.watch.revoked_left.get(&end).is_none_or(|left| *left < revoked);
                if new {
                    self.watch.revoked_left.insert(end.clone(), revoked);
                    self.watch_owner(at, channel)?;
                }
                if self.watch.published.get(&end).is_some_and(|published| *published <= *number) {
                    let what =
                        format!("{at:?} revokes commitment {number} of {channel}, published");
                    return breach(Kind::Revoked, what);
                }
                self.watch_order(at, channel, |its| its.revoked >= revoked)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Who says where it stands owns the witness, and remembers all that has left it, and that its peer
    /// may have.
    fn watch_memory(&self, at: At, channel: &ChannelId) -> Outcome {
        let end = (at.0, channel.clone());
        let (epoch, owner) = (self.copy(at).epoch, self.owner_epoch(at.0));
        if epoch != owner && self.plan.broken.is_none() {
            let what =
                format!("{at:?} speaks of {channel} under epoch {epoch}, deposed by {owner}");
            return breach(Kind::Spoke, what);
        }
        let ours = numbers(&self.stored(at)).get(channel).copied().unwrap_or_default();
        let left =
            if self.witnessed() { &self.watch.revoked_left } else { &self.watch.revoked_held };
        let left = left.get(&end).copied().unwrap_or(0);
        if left > ours.revoked && epoch == owner {
            let what = format!("{at:?} speaks of {channel} at {}, {left} have left", ours.revoked);
            return breach(Kind::Forgot, what);
        }
        Ok(())
    }

    /// Nothing is said about a channel that is in quarantine in the node, or marked on its disk.
    fn silent(&self, at: At, channel: &ChannelId) -> Outcome {
        if self.plan.broken.is_some() {
            return Ok(());
        }
        let driver = self.copy(at).driver.as_ref().expect("it has just answered");
        let listed = driver.node().list().into_iter().find(|listed| listed.id == *channel);
        let held = listed.is_some_and(|listed| {
            matches!(listed.state, ChannelState::Waiting | ChannelState::Blocked)
        });
        let marked = self.stored(at).channels.iter().any(|stored| {
            stored.channel.id() == channel && stored.stale.is_some() && !stored.closed
        });
        if held || marked {
            return breach(
                Kind::Spoke,
                format!("{at:?} spoke of {channel}, which is in quarantine"),
            );
        }
        Ok(())
    }

    fn watch_signature(
        &mut self,
        at: At,
        channel: &ChannelId,
        number: Option<u64>,
        signature: Signature,
    ) -> Outcome {
        let key = (at.0, channel.clone(), number);
        match self.watch.signed.insert(key, signature) {
            None => self.watch_owner(at, channel),
            Some(first) if first != signature && self.witnessed() => {
                let what = format!("{at:?} signed {number:?} of {channel} twice");
                breach(Kind::SignedTwice, what)
            }
            Some(_) => Ok(()),
        }
    }

    fn watch_published(&mut self, at: At, channel: ChannelId, number: u64) -> Outcome {
        let end = (at.0, channel.clone());
        let of = |map: &BTreeMap<End, u64>| map.get(&end).copied().unwrap_or(0);
        let held = of(&self.watch.revoked_held) > number;
        if held || (self.witnessed() && of(&self.watch.revoked_left) > number) {
            let what = format!("{at:?} published commitment {number} of {channel}, revoked");
            return breach(Kind::Revoked, what);
        }
        if self.watch.published.insert(end, number).is_none() {
            self.watch_owner(at, &channel)?;
        }
        self.watch_order(at, &channel, |its| its.closing)
    }

    /// What is new never leaves a copy that lags behind another one.
    fn watch_owner(&self, at: At, channel: &ChannelId) -> Outcome {
        let stored = self.stored(at);
        let stored = stored.channels.iter().find(|stored| stored.channel.id() == channel);
        let epoch = stored.map_or(0, |stored| stored.channel.ours().epoch);
        let raised = self.entry(at.0, channel).map_or(0, |its| its.epoch);
        if self.witnessed() && epoch < raised && self.plan.broken.is_none() {
            let what = format!("{at:?} moves {channel} of epoch {epoch}, it is at epoch {raised}");
            return breach(Kind::Spoke, what);
        }
        Ok(())
    }

    /// What leaves is in the witness, and on the disk.
    fn watch_order(
        &self,
        at: At,
        channel: &ChannelId,
        has: impl Fn(&highwater_guard::Witness) -> bool,
    ) -> Outcome {
        // Where the chain has decided, the witness has forgotten the channel.
        if self.plan.broken.is_some() || self.ledger.view(channel).confirmed {
            return Ok(());
        }
        let stored = self.stored(at);
        let stored = stored.channels.iter().find(|stored| stored.channel.id() == channel);
        let ours = stored.map(|stored| stored.channel.ours()).unwrap_or_default();
        let disk = highwater_guard::Witness {
            signed: ours.signed.unwrap_or(0),
            revoked: ours.revoked,
            received: ours.received,
            closing: ours.closing,
            continuous: true,
            owned: true,
            epoch: 0,
        };
        let witness = self.entry(at.0, channel);
        if !has(&disk) || (self.witnessed() && !witness.is_some_and(|its| has(&its))) {
            let what = format!("{at:?}: what leaves of {channel} is not remembered");
            return breach(Kind::Order, what);
        }
        Ok(())
    }

    /// What the witness of a party says of a channel, whether it can be reached or not.
    pub(super) fn entry(
        &self,
        party: usize,
        channel: &ChannelId,
    ) -> Option<highwater_guard::Witness> {
        let record = self.record(party)?;
        let entry = record.channels.get(channel.as_str())?;
        Some(highwater_guard::Witness {
            signed: entry.signed,
            revoked: entry.revoked,
            received: entry.received,
            closing: entry.closing,
            continuous: entry.continuous,
            owned: true,
            epoch: entry.epoch,
        })
    }

    /// The epoch of the copy that has taken the witness over last; 0 where there is no witness.
    fn owner_epoch(&self, party: usize) -> u64 {
        self.record(party).filter(|_| self.witnessed()).map_or(0, |record| record.epoch)
    }

    fn record(&self, party: usize) -> Option<WitnessRecord> {
        let party = &self.parties[party];
        party.witness.cut_off(false);
        let record = Witness::look(&party.witness, &party.name);
        party.witness.cut_off(!party.reachable);
        record.expect("a witness in memory can be read")
    }

    /// A published commitment was proven to be revoked.
    pub(super) fn watch_punished(&mut self, channel: &ChannelId) -> Outcome {
        self.tally.punished += 1;
        let Some(Spend::Commit(signed)) = self.ledger.view(channel).spend else { return Ok(()) };
        let owner = self.channels[channel].ends[side(signed.commitment.owner)];
        if self.honest(owner) {
            return breach(Kind::Money, format!("party {owner} was punished for {channel}"));
        }
        Ok(())
    }

    /// Takes note of what is durable on a copy's disk.
    pub(super) fn observe(&mut self, at: At) {
        for stored in self.stored(at).channels {
            let mut channel = stored.channel;
            channel.stamp(0);
            let (id, ours) = (channel.id().clone(), channel.ours());
            let Some(story) = self.channels.get(&id) else { continue };
            let peer = story.ends[usize::from(story.ends[0] == at.0)];
            let held = self.watch.revoked_held.entry((peer, id.clone())).or_default();
            *held = (*held).max(ours.received);
            let latest = self.watch.latest.get(&(at.0, id.clone()));
            if latest.is_none_or(|latest| rank(&latest.ours()) <= rank(&ours)) {
                self.watch.latest.insert((at.0, id), channel);
            }
        }
        let Some(driver) = &self.copy(at).driver else { return };
        for listed in driver.node().list() {
            let end = (at.0, listed.id);
            match listed.state {
                ChannelState::Blocked => {
                    self.tally.blocked += u64::from(self.watch.blocked.insert(end));
                }
                ChannelState::Waiting => {
                    self.watch.waiting.insert(end);
                }
                ChannelState::Open => {
                    self.tally.cleared += u64::from(self.watch.waiting.remove(&end))
                }
                _ => {}
            }
        }
    }
}

pub(super) fn side(side: Side) -> usize {
    match side {
        Side::Opener => 0,
        Side::Acceptor => 1,
    }
}
