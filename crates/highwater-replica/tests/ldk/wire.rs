//! The wire between two nodes: messages by hand, in order.

use lightning::ln::msgs::{BaseMessageHandler as _, ChannelMessageHandler as _, MessageSendEvent};

use super::node::Node;

/// Delivers what `from` has to say to `to`; whether there was anything.
pub(crate) fn deliver(from: &Node, to: &Node) -> bool {
    let events = from.manager.get_and_clear_pending_msg_events();
    let any = !events.is_empty();
    events.into_iter().for_each(|event| hand_over(from, to, event));
    any
}

fn hand_over(from: &Node, to: &Node, event: MessageSendEvent) {
    let (peer, to) = (from.id(), &to.manager);
    match event {
        MessageSendEvent::SendOpenChannel { msg, .. } => to.handle_open_channel(peer, &msg),
        MessageSendEvent::SendAcceptChannel { msg, .. } => to.handle_accept_channel(peer, &msg),
        MessageSendEvent::SendFundingCreated { msg, .. } => to.handle_funding_created(peer, &msg),
        MessageSendEvent::SendFundingSigned { msg, .. } => to.handle_funding_signed(peer, &msg),
        MessageSendEvent::SendChannelReady { msg, .. } => to.handle_channel_ready(peer, &msg),
        MessageSendEvent::SendChannelReestablish { msg, .. } => {
            to.handle_channel_reestablish(peer, &msg);
        }
        MessageSendEvent::SendRevokeAndACK { msg, .. } => to.handle_revoke_and_ack(peer, &msg),
        MessageSendEvent::UpdateHTLCs { updates, .. } => {
            updates.update_add_htlcs.iter().for_each(|msg| to.handle_update_add_htlc(peer, msg));
            for msg in updates.update_fulfill_htlcs {
                to.handle_update_fulfill_htlc(peer, msg);
            }
            updates.update_fail_htlcs.iter().for_each(|msg| to.handle_update_fail_htlc(peer, msg));
            for msg in &updates.update_fail_malformed_htlcs {
                to.handle_update_fail_malformed_htlc(peer, msg);
            }
            updates.update_fee.iter().for_each(|msg| to.handle_update_fee(peer, msg));
            for msg in &updates.commitment_signed {
                to.handle_commitment_signed(peer, msg);
            }
        }
        MessageSendEvent::HandleError { action, .. } => panic!("a peer is at fault: {action:?}"),
        // Gossip, and what is of no account between two.
        _ => {}
    }
}
