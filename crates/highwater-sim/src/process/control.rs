//! What an operator can ask of a running node.

use clap::Subcommand;
use highwater::{Error, Result};
use highwater_guard::Release;
use serde::{Deserialize, Serialize};

use crate::ids::{Both, ChannelId, PaymentHash, PeerId, Sats};
use crate::node::Command;

/// A request to a node.
#[derive(Clone, Debug, Serialize, Deserialize, Subcommand)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum NodeRequest {
    /// The node, its channels and its sessions.
    List,
    /// Opens a channel.
    Open {
        /// The peer, by its key or by the name given to the node.
        peer: String,
        /// What is ours in it.
        ours: u64,
        /// What is the peer's.
        #[arg(default_value_t = 0)]
        theirs: u64,
    },
    /// Makes an invoice, for a peer to pay.
    Invoice,
    /// Pays an invoice.
    Pay {
        /// The channel.
        channel: ChannelId,
        /// How much.
        amount: u64,
        /// The invoice.
        hash: PaymentHash,
    },
    /// How a payment stands.
    Payment {
        /// The invoice.
        hash: PaymentHash,
    },
    /// Closes a channel together with its peer.
    Close {
        /// The channel.
        channel: ChannelId,
    },
    /// Publishes our own commitment.
    ForceClose {
        /// The channel.
        channel: ChannelId,
    },
    /// Lets a channel out of quarantine.
    Release {
        /// The channel.
        channel: ChannelId,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Who did it.
        #[arg(long)]
        by: String,
    },
    /// Jumps over channel keys, so that none of a lacking channel is used again.
    JumpKeys {
        /// Over how many.
        by: u64,
    },
    /// Keeps a session with one more peer.
    Connect {
        /// What it is called here.
        name: String,
        /// Where it listens.
        address: std::net::SocketAddr,
    },
    /// Backs the node up, while it runs.
    Backup,
    /// Stops the node.
    Stop,
}

impl NodeRequest {
    /// The command of the core that it is, for those that are; `peer` knows peers by name.
    pub(super) fn command(&self, peer: impl Fn(&str) -> Option<PeerId>) -> Result<Option<Command>> {
        Ok(Some(match self.clone() {
            NodeRequest::Open { peer: name, ours, theirs } => {
                let known = peer(&name).or_else(|| name.parse().ok());
                let peer = known.ok_or_else(|| {
                    Error::not_found(format!("no session with `{name}` has told who that is"))
                })?;
                let balance = Both { opener: Sats(ours), acceptor: Sats(theirs) };
                Command::Open { peer, balance }
            }
            NodeRequest::Invoice => Command::Invoice,
            NodeRequest::Pay { channel, amount, hash } => {
                Command::Pay { channel, amount: Sats(amount), hash }
            }
            NodeRequest::Close { channel } => Command::Close { channel },
            NodeRequest::ForceClose { channel } => Command::ForceClose { channel },
            NodeRequest::JumpKeys { by } => Command::JumpCounters { by },
            _ => return Ok(None),
        }))
    }
}

/// A release that an operator asks for.
pub(super) fn release(reason: String, by: String) -> Result<Release> {
    Release::new(reason, by).map_err(|error| Error::input(error.to_string()))
}
