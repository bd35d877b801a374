//! Sessions with peers over TCP. Both sides prove who they are; the wire itself is neither sealed nor
//! guarded against who sits on it, as it is not part of what this node shows.

use std::net::TcpStream;
use std::time::Duration;

use highwater::{Env, Error, Result};
use serde::{Deserialize, Serialize};

use crate::ids::{PeerId, Signature};
use crate::keys::{NodeKeys, tagged};
use crate::wire::{read_frame, write_frame};

/// A peer says who it is, and takes what it is sent, within this time.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    version: u32,
    node: PeerId,
    nonce: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    signature: Signature,
}

/// Introduces both sides to each other; who the other one is.
pub(super) fn greet(stream: &mut TcpStream, keys: &NodeKeys, env: &Env) -> Result<PeerId> {
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .map_err(|error| Error::io("a session", error))?;
    let nonce = hex::encode(env.random::<32>()?);
    let ours = Hello { version: 1, node: keys.peer_id(), nonce };
    write_frame(stream, &ours)?;
    let theirs: Hello = next(stream)?;
    if theirs.version != 1 || theirs.node == ours.node {
        return Err(Error::input("the other side is no peer of this version"));
    }
    write_frame(stream, &Proof { signature: keys.identity().sign(&challenge(&ours, &theirs)) })?;
    let proof: Proof = next(stream)?;
    if !theirs.node.verifies(&challenge(&theirs, &ours), &proof.signature) {
        return Err(Error::denied("the peer could not prove who it is"));
    }
    stream.set_read_timeout(None).map_err(|error| Error::io("a session", error))?;
    Ok(theirs.node)
}

/// What `one` signs for `other`.
fn challenge(one: &Hello, other: &Hello) -> [u8; 32] {
    let parts = [&one.node.0[..], &other.node.0, one.nonce.as_bytes(), other.nonce.as_bytes()];
    tagged("highwater-sim/session", &parts)
}

fn next<T: for<'de> Deserialize<'de>>(stream: &mut TcpStream) -> Result<T> {
    read_frame(stream)?.ok_or_else(|| Error::unavailable("the peer has ended the session"))
}
