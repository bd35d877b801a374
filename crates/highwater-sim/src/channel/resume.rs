//! Where two sessions meet: what the peer says that it has, and what is sent again.

use highwater_guard::Report;

use super::Channel;
use crate::keys::ChannelKeys;
use crate::wire::{Body, Reestablish};

/// Two memories that don't fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The peer has more from us than we remember: ours is old.
    WeForgot,
    /// The peer remembers less than it has told us before: its memory is old, or it lies.
    PeerForgot,
}

impl Channel {
    /// Where we stand.
    pub fn reestablish(&self) -> Reestablish {
        Reestablish { next_commitment: self.revoked + 1, next_revocation: self.received }
    }

    /// What the peer lacks, in the order in which it was first sent: the last signature with the
    /// changes that it covered, the last revocation, both or nothing.
    pub fn resume(&self, keys: &ChannelKeys, report: Report) -> Result<Vec<Body>, Mismatch> {
        let Report { revocations_held, signatures_taken } = report;
        if revocations_held > self.revoked || signatures_taken > self.signed {
            return Err(Mismatch::WeForgot);
        }
        // The peer has taken each signature that it has revoked after.
        if revocations_held + 1 < self.revoked || signatures_taken < self.received {
            return Err(Mismatch::PeerForgot);
        }
        let mut messages = Vec::new();
        if self.ready.ours && revocations_held == 0 && signatures_taken == 0 {
            messages.push(Body::Ready);
        }
        let revocation = (revocations_held < self.revoked).then(|| self.revocation_message(keys));
        let signature = match signatures_taken < self.signed {
            true => self.signing_messages(),
            false => Vec::new(),
        };
        if self.revoked_last {
            messages.extend(signature);
            messages.extend(revocation);
        } else {
            messages.extend(revocation);
            messages.extend(signature);
        }
        if self.shutdown.ours {
            messages.push(Body::Shutdown);
        }
        if self.closing && !self.published {
            messages.push(self.close_message(keys));
        }
        Ok(messages)
    }
}
