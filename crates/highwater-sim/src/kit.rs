//! What never changes of a node: its seed, and of each channel who it is with, what funds it, and
//! the index of its keys. Enough to have all channels closed when every backup is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use highwater::kit::{IdentityKey, Kit, KitChannel, KitContent};
use highwater::{Error, Result};

use crate::ids::{ChannelId, PeerId, Side};
use crate::keys::NodeKeys;
use crate::store::Stored;

/// The name of the one identity key.
const SEED: &str = "seed";

/// What a kit of this node is made of.
pub fn content(
    keys: &NodeKeys,
    stored: &Stored,
    addresses: &BTreeMap<PeerId, SocketAddr>,
) -> KitContent {
    let open = stored.channels.iter().filter(|stored| !stored.closed);
    let channels = open.map(|stored| {
        let channel = &stored.channel;
        let funding = channel.funding();
        let opener = *funding.parties.at(Side::Opener) == keys.peer_id();
        let side = if opener { "opener" } else { "acceptor" };
        KitChannel {
            id: channel.id().to_string(),
            peer: channel.peer().to_string(),
            addresses: addresses.get(channel.peer()).map(ToString::to_string).into_iter().collect(),
            // On this ledger an output has the name of its channel.
            funding: channel.id().to_string(),
            capacity: funding.capacity.0,
            keys: BTreeMap::from([
                ("index".to_owned(), channel.index().to_string()),
                ("side".to_owned(), side.to_owned()),
            ]),
        }
    });
    let seed = IdentityKey { name: SEED.to_owned(), secret: keys.seed().to_vec().into() };
    KitContent::new(vec![seed], channels.collect())
}

/// The keys that a kit holds.
pub fn keys(kit: &Kit) -> Result<NodeKeys> {
    let identity = kit.identity.iter().find(|key| key.name == SEED);
    let seed = identity.and_then(|key| <[u8; 32]>::try_from(key.secret.as_slice()).ok());
    seed.map(NodeKeys::new).ok_or_else(|| {
        Error::input("the kit holds no seed of a channel-node").with_entry(kit.node.to_string())
    })
}

/// A channel that a kit names.
pub struct Lost {
    /// The channel.
    pub id: ChannelId,
    /// Who it is with.
    pub peer: PeerId,
    /// Which side of it is ours.
    pub side: Side,
    /// Where the peer was reached.
    pub addresses: Vec<SocketAddr>,
}

/// The channels that a kit names.
pub fn channels(kit: &Kit) -> Result<Vec<Lost>> {
    let channel = |it: &KitChannel| {
        let wrong =
            || Error::input("the kit was not made by a channel-node").with_entry(it.id.clone());
        Ok(Lost {
            id: it.id.parse().map_err(|_| wrong())?,
            peer: it.peer.parse().map_err(|_| wrong())?,
            side: match it.keys.get("side").map(String::as_str) {
                Some("opener") => Side::Opener,
                Some("acceptor") => Side::Acceptor,
                _ => return Err(wrong()),
            },
            addresses: it.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        })
    };
    kit.channels.iter().map(channel).collect()
}
