//! A node that has nothing left but its recovery kit. It tells its peers so, and they close; it
//! can sign nothing, publish nothing, and tell no number that could be used against it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use highwater::vault::Secret;
use highwater::{Control, Error, Result, kit};
use serde_json::{Value, json};

use super::ledger::LedgerLine;
use super::run::stop_signal;
use super::{RecoverArgs, peers};
use crate::ids::{ChannelId, PeerId, Sats};
use crate::keys::NodeKeys;
use crate::wire::{Body, Message, write_frame};

/// How often the ledger is looked at, and a peer that has not closed is told again.
const TICK: Duration = Duration::from_millis(200);
/// A peer is there within this time, or is tried again later.
const DIAL_MAX: Duration = Duration::from_secs(2);

/// Brings the money home. It ends when the ledger has paid every channel of the kit.
pub(super) fn recover(args: &RecoverArgs, control: &Control) -> Result<Value> {
    let stop = stop_signal()?;
    let sealed = kit::read_file(&args.kit)?;
    let kit = kit::open(&sealed, &Secret::from_key_file(&args.key_file)?)?;
    let keys = crate::kit::keys(&kit)?;
    let mut open = BTreeMap::new();
    for channel in crate::kit::channels(&kit)? {
        let given = args.peers.iter().filter(|(name, _)| *name == channel.peer.to_string());
        let given: Vec<SocketAddr> = given.map(|(_, address)| *address).collect();
        let addresses = [given, channel.addresses].concat();
        if addresses.is_empty() {
            return Err(Error::input("nobody knows where the peer of a channel listens")
                .with_entry(channel.id.as_str())
                .with_remedy(format!("say so with --peer {}=ADDRESS", channel.peer)));
        }
        open.insert(channel.id, (channel.peer, channel.side, addresses));
    }
    let mut ledger = LedgerLine::new(args.ledger);
    let (channels, mut paid) = (open.len(), Sats(0));
    while !open.is_empty() {
        if stop() {
            return Err(Error::interrupted());
        }
        let mut untold: BTreeMap<PeerId, (Vec<SocketAddr>, BTreeSet<ChannelId>)> = BTreeMap::new();
        let mut done = Vec::new();
        for (id, (peer, side, addresses)) in &open {
            let view = ledger.view(id.clone())?;
            if let Some(all) = view.paid {
                paid += *all.at(*side);
                done.push(id.clone());
            } else if view.spend.is_none() {
                let entry = untold.entry(*peer).or_insert((addresses.clone(), BTreeSet::new()));
                entry.1.insert(id.clone());
            }
        }
        open.retain(|id, _| !done.contains(id));
        for (peer, (addresses, channels)) in untold {
            // Who can't be reached now is told at the next tick.
            let _ = addresses.iter().any(|to| tell(&keys, peer, *to, &channels, control).is_ok());
        }
        control.env.pause(TICK);
    }
    Ok(json!({ "node": keys.peer_id(), "channels": channels, "paid": paid }))
}

/// Tells a peer which channels are lost to us, and waits until it has heard.
fn tell(
    keys: &NodeKeys,
    peer: PeerId,
    address: SocketAddr,
    channels: &BTreeSet<ChannelId>,
    control: &Control,
) -> Result<()> {
    let lost = |error| Error::io(address, error);
    let mut stream = TcpStream::connect_timeout(&address, DIAL_MAX).map_err(lost)?;
    if peers::greet(&mut stream, keys, &control.env)? != peer {
        return Err(Error::denied("another node answers there").with_entry(address.to_string()));
    }
    for channel in channels {
        write_frame(&mut stream, &Message { channel: channel.clone(), body: Body::Lost })?;
    }
    // What the peer says meanwhile is of no use to us; it ends the session once it has heard.
    stream.shutdown(Shutdown::Write).map_err(lost)?;
    stream.set_read_timeout(Some(DIAL_MAX)).map_err(lost)?;
    std::io::copy(&mut stream, &mut std::io::sink()).map(drop).map_err(lost)
}
