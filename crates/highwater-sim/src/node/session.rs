//! Sessions with peers. Each begins with one word about each live channel; a quarantined one is not
//! spoken of, only listened to.

use std::collections::BTreeMap;

use super::{Node, Slot, Step};
use crate::channel::Terms;
use crate::commitment::Change;
use crate::ids::{ChannelId, PeerId};
use crate::wire::{Body, Message, Reestablish};

/// Channels that peers name and we lack are remembered up to this number.
const LACKING_MAX: usize = 1024;

/// A session with one peer.
#[derive(Default)]
pub(super) struct Session {
    pub(super) talks: BTreeMap<ChannelId, Talk>,
    /// Channels that are being opened: they don't outlive the session.
    pub(super) openings: BTreeMap<ChannelId, Terms>,
}

/// What was said about one channel in one session.
#[derive(Default)]
pub(super) struct Talk {
    /// We have said where we stand.
    pub(super) spoken: bool,
    /// Where the peer stands; remembered while the channel is in quarantine.
    pub(super) heard: Option<Reestablish>,
    /// Both have, and what was lost was sent again.
    pub(super) resumed: bool,
    /// The peer's changes that its next signature covers.
    pub(super) incoming: Vec<Change>,
}

impl Node {
    pub(super) fn connected(&mut self, peer: PeerId, step: &mut Step) {
        self.sessions.insert(peer, Session::default());
        let channels: Vec<ChannelId> = self
            .peers
            .iter()
            .filter(|(_, with)| **with == peer)
            .map(|(id, _)| id.clone())
            .collect();
        for id in channels {
            self.introduce(&id, step);
        }
    }

    /// Says where a live channel stands, once in a session.
    pub(super) fn introduce(&mut self, id: &ChannelId, step: &mut Step) {
        let Some(Slot::Live(channel)) = self.channels.get(id) else { return };
        let peer = *channel.peer();
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let talk = session.talks.entry(id.clone()).or_default();
        if talk.spoken || channel.stopped().is_some() || channel.is_published() {
            return;
        }
        talk.spoken = true;
        step.confirm = true;
        step.speak_for(channel);
        step.send(peer, id, Body::Reestablish(channel.reestablish()));
        self.resume(id, step);
    }

    pub(super) fn message(&mut self, peer: PeerId, message: Message, step: &mut Step) {
        let Message { channel: id, body } = message;
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if body.opens() {
            return self.open_message(peer, id, body, step);
        }
        match self.channels.get(&id) {
            // Nothing is answered about a channel that we lack: the peer would close it.
            None if matches!(body, Body::Reestablish(_)) => {
                if self.lacking.len() < LACKING_MAX {
                    self.keys_jumped &= !self.lacking.insert(id);
                }
            }
            Some(_) if self.peers.get(&id) != Some(&peer) => {}
            Some(Slot::Quarantined(_)) => {
                if let Body::Reestablish(reestablish) = body {
                    session.talks.entry(id.clone()).or_default().heard = Some(reestablish);
                    self.hear(&id, step);
                }
            }
            Some(Slot::Live(_)) => self.live_message(&id, body, step),
            Some(Slot::Offered(_) | Slot::Closed(_)) | None => {}
        }
    }
}

impl Body {
    fn opens(&self) -> bool {
        matches!(
            self,
            Body::Open { .. }
                | Body::Accept { .. }
                | Body::FundingCreated { .. }
                | Body::FundingSigned { .. }
        )
    }
}
