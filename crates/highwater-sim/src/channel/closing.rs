//! The cooperative close: both sides stop offering, what is under way ends, both sign the same split.

use super::{Channel, Violation, violation};
use crate::commitment::{Change, Close, SignedClose};
use crate::ids::{Both, PaymentHash, Signature};
use crate::keys::ChannelKeys;
use crate::wire::Body;

impl Channel {
    /// Begins to close; the payments that were queued and never left.
    pub fn shut_down(&mut self) -> Vec<PaymentHash> {
        self.shutdown.ours = true;
        let mut dropped = Vec::new();
        self.queue.retain(|change| match change {
            Change::Add { hash, .. } => {
                dropped.push(*hash);
                false
            }
            Change::Fulfill { .. } | Change::Fail { .. } => true,
        });
        dropped
    }

    /// We have said that we want to close.
    pub fn is_shutting_down(&self) -> bool {
        self.shutdown.ours
    }

    /// The peer wants to close.
    pub fn take_shutdown(&mut self) {
        self.shutdown.theirs = true;
    }

    /// Signs the close, where both want it and nothing is under way any more. From here on no
    /// commitment is signed.
    pub fn sign_close(&mut self, keys: &ChannelKeys) -> Option<Body> {
        let both = self.shutdown.ours && self.shutdown.theirs;
        if !both || !self.is_settled() || !self.may_sign() {
            return None;
        }
        self.closing = true;
        Some(self.close_message(keys))
    }

    /// Takes the peer's signature of the close.
    pub fn take_close(&mut self, signature: Signature) -> Result<(), Violation> {
        if !self.shutdown.theirs || !self.is_settled() {
            return violation("it signed the close while payments are under way");
        }
        if !self.their_key().verifies(&self.close().digest(), &signature) {
            return violation("its signature of the close is wrong");
        }
        self.close_signature = Some(signature);
        Ok(())
    }

    /// The close, once both have signed it.
    pub fn closed_by_both(&self, keys: &ChannelKeys) -> Option<SignedClose> {
        let theirs = self.close_signature.filter(|_| self.closing && !self.published)?;
        let close = self.close();
        let ours = keys.signing.sign(&close.digest());
        Some(SignedClose { close, signatures: Both::of(self.side, ours, theirs) })
    }

    pub(super) fn close_message(&self, keys: &ChannelKeys) -> Body {
        Body::ClosingSigned { signature: keys.signing.sign(&self.close().digest()) }
    }

    fn close(&self) -> Close {
        Close { channel: self.id.clone(), of: self.balance.of }
    }
}
