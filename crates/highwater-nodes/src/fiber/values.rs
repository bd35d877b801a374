//! What Fiber keeps of a channel: `ChannelActorData`, and the `ChannelState` of its index.
//!
//! The layout is that of the crate `fiber-types` (`src/channel.rs`, `src/protocol.rs`, `src/onion.rs`) in its
//! releases 0.8.1, 0.9.1 and 0.10.0-rc1, and of `fiber-lib` 0.7.1 (`src/fiber/channel.rs`), which differ in
//! what stands at the end. Its fields in their order, the bytes of each in brackets:
//!
//! - `state`: the variant (4), and the flags (4) of those that have some: all but `ChannelReady` and `Stale`
//! - `public_channel_info`: optional; see [`public_channel_info`]
//! - `local_tlc_info` (49), `remote_tlc_info` (49, optional)
//! - `local_pubkey`, `remote_pubkey` (33 each)
//! - `id`: a text; `funding_tx`: an optional text
//! - `funding_tx_confirmed_at`: optional; a text, and a block and its time (12)
//! - `funding_udt_type_script`: an optional text
//! - `is_acceptor`, `is_one_way` (1 each)
//! - `to_local_amount`, `to_remote_amount` (16 each)
//! - two reserved amounts, two rates of fees and the delay between them (8 each)
//! - `signer` (128): keys. They are skipped
//! - `local_channel_public_keys` (66)
//! - `commitment_numbers`: `local`, `remote` (8 each)
//! - `local_constraints`, `remote_constraints` (24 each)
//! - `tlc_state`: offered ones, received ones, `waiting_ack` (1); see [`tlc`]
//! - `retryable_tlc_operations`: a list; see [`retryable`]
//! - `waiting_forward_tlc_tasks`: a list of an id (12) and a secret (32)
//! - `remote_shutdown_script`: an optional text; `local_shutdown_script`: a text
//! - four nonces, each optional, 66 bytes behind their length
//! - `latest_commitment_transaction`: an optional text
//! - `remote_commitment_points`: a list of a number (8) and a key (33)
//! - `remote_channel_public_keys` (66, optional)
//! - `local_shutdown_info`, `remote_shutdown_info`: optional; see [`shutdown_info`]
//! - `shutdown_transaction_hash`: an optional text
//! - `reestablishing` (1)
//! - `last_revoke_ack_msg`: optional; see [`revoke_and_ack`]
//! - `created_at` (12)
//! - since 0.8: `pending_replay_updates`, a list, see [`replay_update`]; `last_was_revoke` (1)
//! - since 0.9: `connectivity_state` (4); `external_funding`, optional, see [`external_funding`]
//! - since 0.10: `commitment_contract_features` (1)
//!
//! A text is its length (8) and `0x` with hexadecimal digits: so bincode writes what the node hands to it as
//! a text, hashes and molecules among them. Keys are 33 bytes without a length, since to bincode they are no
//! texts.

use super::reader::{Read, Reader};

/// A key of secp256k1, compressed.
pub const KEY_BYTES: usize = 33;
const KEY_PAIR_BYTES: usize = 2 * KEY_BYTES;
const NONCE_BYTES: usize = 66;
const SCHNORR_BYTES: usize = 64;
const PARTIAL_SIGNATURE_BYTES: usize = 32;
const SECRET_BYTES: usize = 32;
const U64_BYTES: usize = 8;
const U128_BYTES: usize = 16;
/// When, whether, a fee, a delta of expiry, the least value.
const TLC_INFO_BYTES: usize = U64_BYTES + 1 + U128_BYTES + U64_BYTES + U128_BYTES;
const CONSTRAINTS_BYTES: usize = U128_BYTES + U64_BYTES;
const NUMBERS_BYTES: usize = 2 * U64_BYTES;
/// Three keys and a seed.
const SIGNER_BYTES: usize = 4 * SECRET_BYTES;
const TIME_BYTES: usize = U64_BYTES + 4;

/// How a channel's value ends; each has all that the one before it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layout {
    /// With the time at which it was made.
    V07,
    /// With what is replayed.
    V08,
    /// With what funds it; and the features or not, since 0.9 and 0.10.0-rc1 gave their stores the same
    /// version. What is left of the value says which.
    V09,
    /// With the features of its contract.
    V10,
}

/// The node's states of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ChannelState {
    /// The parameters are negotiated.
    NegotiatingFunding = 0,
    /// The funding transaction is made.
    CollaboratingFundingTx = 1,
    /// Commitments are signed.
    SigningCommitment = 2,
    /// The funding transaction is signed.
    AwaitingTxSignatures = 3,
    /// The funding transaction is waited for.
    AwaitingChannelReady = 4,
    /// It is in use.
    ChannelReady = 5,
    /// It is being closed.
    ShuttingDown = 6,
    /// Its close is confirmed.
    Closed = 7,
    /// It may be old: the node waits for what its peer says. Known since 0.9.
    Stale = 8,
}

impl ChannelState {
    /// Every state, by its number.
    pub const ALL: [ChannelState; 9] = [
        ChannelState::NegotiatingFunding,
        ChannelState::CollaboratingFundingTx,
        ChannelState::SigningCommitment,
        ChannelState::AwaitingTxSignatures,
        ChannelState::AwaitingChannelReady,
        ChannelState::ChannelReady,
        ChannelState::ShuttingDown,
        ChannelState::Closed,
        ChannelState::Stale,
    ];

    /// As many states as the layout knows.
    fn known(layout: Layout) -> u32 {
        if layout < Layout::V09 {
            ChannelState::Stale as u32
        } else {
            ChannelState::Stale as u32 + 1
        }
    }

    fn has_flags(self) -> bool {
        !matches!(self, ChannelState::ChannelReady | ChannelState::Stale)
    }

    /// Bytes of a state without its flags.
    pub(super) const BYTES: usize = 4;

    /// As it is stored, without its flags.
    pub(super) fn to_bytes(self) -> [u8; ChannelState::BYTES] {
        (self as u32).to_le_bytes()
    }
}

/// What was read of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Actor {
    pub(super) id: [u8; 32],
    pub(super) peer: [u8; KEY_BYTES],
    pub(super) state: ChannelState,
    /// Of the state; 0 where it has none.
    pub(super) flags: u32,
    pub(super) local: u64,
    pub(super) remote: u64,
    /// A commitment is signed that the peer has not answered.
    pub(super) waiting_ack: bool,
}

/// Reads a `ChannelActorData`.
pub(super) fn actor(bytes: &[u8], layout: Layout) -> Read<Actor> {
    let r = &mut Reader::new(bytes);
    let (state, flags) = read_state(r, layout)?;
    r.option(public_channel_info)?;
    r.skip(TLC_INFO_BYTES)?;
    r.option(|r| r.skip(TLC_INFO_BYTES))?;
    r.skip(KEY_BYTES)?;
    let peer = r.array()?;
    let id = r.hash()?;
    r.option(text)?;
    r.option(|r| {
        r.hash()?;
        r.skip(4 + U64_BYTES)
    })?;
    r.option(text)?;
    r.bool()?;
    r.bool()?;
    r.skip(2 * U128_BYTES + 5 * U64_BYTES)?;
    r.skip(SIGNER_BYTES + KEY_PAIR_BYTES)?;
    let (local, remote) = (r.u64()?, r.u64()?);
    r.skip(2 * CONSTRAINTS_BYTES)?;
    tlcs(r)?;
    tlcs(r)?;
    let waiting_ack = r.bool()?;
    r.list(retryable)?;
    r.list(|r| {
        tlc_id(r)?;
        r.skip(SECRET_BYTES)
    })?;
    closing(r)?;
    r.skip(TIME_BYTES)?;
    since(r, layout)?;
    r.end()?;
    Ok(Actor { id, peer, state, flags, local, remote, waiting_ack })
}

/// Reads a `ChannelState`, and tells its flags.
pub(super) fn state(bytes: &[u8], layout: Layout) -> Read<(ChannelState, u32)> {
    let mut r = Reader::new(bytes);
    let state = read_state(&mut r, layout)?;
    r.end()?;
    Ok(state)
}

fn read_state(r: &mut Reader<'_>, layout: Layout) -> Read<(ChannelState, u32)> {
    let number = r.variant(ChannelState::known(layout))?;
    let Some(state) = ChannelState::ALL.into_iter().find(|state| *state as u32 == number) else {
        return r.fault("a known state before this byte");
    };
    Ok((state, if state.has_flags() { r.u32()? } else { 0 }))
}

/// From the script of the peer's shutdown to the peer's last revocation.
fn closing(r: &mut Reader<'_>) -> Read {
    r.option(text)?;
    text(r)?;
    for _ in 0..4 {
        r.option(nonce)?;
    }
    r.option(text)?;
    r.list(|r| r.skip(U64_BYTES + KEY_BYTES))?;
    r.option(|r| r.skip(KEY_PAIR_BYTES))?;
    r.option(shutdown_info)?;
    r.option(shutdown_info)?;
    r.option(hash)?;
    r.bool()?;
    r.option(revoke_and_ack).map(drop)
}

/// What later releases have put at the end.
fn since(r: &mut Reader<'_>, layout: Layout) -> Read {
    if layout >= Layout::V08 {
        r.list(replay_update)?;
        r.bool()?;
    }
    if layout >= Layout::V09 {
        r.variant(3)?;
        r.option(external_funding)?;
    }
    if layout >= Layout::V10 || (layout == Layout::V09 && !r.is_empty()) {
        // The full hash of a payment, or a part of it: the node knows no other.
        r.bool()?;
    }
    Ok(())
}

fn text(r: &mut Reader<'_>) -> Read {
    r.hex().map(drop)
}

fn hash(r: &mut Reader<'_>) -> Read {
    r.hash().map(drop)
}

fn nonce(r: &mut Reader<'_>) -> Read {
    r.bytes_of(NONCE_BYTES).map(drop)
}

/// Of any length: ECDSA's signatures in DER, packets in onions.
fn bytes(r: &mut Reader<'_>) -> Read {
    r.bytes().map(drop)
}

/// `PublicChannelInfo`: two pairs of signatures, a nonce, an announcement, an update; each optional.
fn public_channel_info(r: &mut Reader<'_>) -> Read {
    for _ in 0..2 {
        r.option(|r| {
            bytes(r)?;
            r.skip(PARTIAL_SIGNATURE_BYTES)
        })?;
    }
    r.option(nonce)?;
    r.option(announcement)?;
    r.option(update).map(drop)
}

/// `ChannelAnnouncement`: three optional signatures, features (8), the chain, the outpoint, two nodes (33
/// each), a key (32), the capacity (16), an optional script.
fn announcement(r: &mut Reader<'_>) -> Read {
    r.option(bytes)?;
    r.option(bytes)?;
    r.option(|r| r.bytes_of(SCHNORR_BYTES).map(drop))?;
    r.skip(U64_BYTES)?;
    hash(r)?;
    text(r)?;
    r.skip(2 * KEY_BYTES + 32 + U128_BYTES)?;
    r.option(text).map(drop)
}

/// `ChannelUpdate`: an optional signature, the chain, the outpoint, the time (8), flags (4 and 4), a delta of
/// expiry (8), the least value (16), a fee (16).
fn update(r: &mut Reader<'_>) -> Read {
    r.option(bytes)?;
    hash(r)?;
    text(r)?;
    r.skip(2 * U64_BYTES + 2 * 4 + 2 * U128_BYTES)
}

/// `PendingTlcs`: a list, and the next id (8).
fn tlcs(r: &mut Reader<'_>) -> Read {
    r.list(tlc)?;
    r.skip(U64_BYTES)
}

/// `TLCId`: offered or received, and a number (8).
fn tlc_id(r: &mut Reader<'_>) -> Read {
    r.variant(2)?;
    r.skip(U64_BYTES)
}

/// `TlcInfo`.
fn tlc(r: &mut Reader<'_>) -> Read {
    // Outbound or inbound, and the status of that.
    r.variant(2)?;
    r.variant(6)?;
    tlc_id(r)?;
    r.skip(U128_BYTES)?;
    hash(r)?;
    // The total amount, the payment's secret, the attempt.
    r.option(|r| r.skip(U128_BYTES))?;
    r.option(hash)?;
    r.option(|r| r.skip(U64_BYTES))?;
    r.skip(U64_BYTES)?;
    algorithm(r)?;
    r.option(bytes)?;
    r.skip(SECRET_BYTES)?;
    r.bool()?;
    r.skip(NUMBERS_BYTES)?;
    r.option(remove_reason)?;
    r.option(|r| {
        hash(r)?;
        r.skip(U64_BYTES)
    })?;
    r.option(|r| r.skip(U64_BYTES))?;
    r.u8().map(drop)
}

/// `HashAlgorithm`.
fn algorithm(r: &mut Reader<'_>) -> Read {
    r.variant(2).map(drop)
}

/// `RemoveTlcReason`: a preimage, or a packet.
fn remove_reason(r: &mut Reader<'_>) -> Read {
    match r.variant(2)? {
        0 => hash(r),
        _ => bytes(r),
    }
}

/// `RetryableTlcOperation`: a TLC to be removed and why, or one to be added (`AddTlcCommand`).
fn retryable(r: &mut Reader<'_>) -> Read {
    if r.variant(2)? == 0 {
        tlc_id(r)?;
        return remove_reason(r);
    }
    r.skip(U128_BYTES)?;
    hash(r)?;
    r.option(|r| r.skip(U64_BYTES))?;
    r.skip(U64_BYTES)?;
    algorithm(r)?;
    r.option(bytes)?;
    r.skip(SECRET_BYTES)?;
    r.bool()?;
    // `PrevTlcInfo`: its channel, its number, a fee, and a secret, which need not be there.
    r.option(|r| {
        hash(r)?;
        r.skip(U64_BYTES + U128_BYTES)?;
        r.option(|r| r.skip(SECRET_BYTES)).map(drop)
    })
    .map(drop)
}

/// `ShutdownInfo`: a script, a rate of fees (8), a signature, which need not be there.
fn shutdown_info(r: &mut Reader<'_>) -> Read {
    text(r)?;
    r.skip(U64_BYTES)?;
    r.option(|r| r.skip(PARTIAL_SIGNATURE_BYTES)).map(drop)
}

/// `RevokeAndAck`: the channel, a signature (32), the next point (33), the next nonce.
fn revoke_and_ack(r: &mut Reader<'_>) -> Read {
    hash(r)?;
    r.skip(PARTIAL_SIGNATURE_BYTES + KEY_BYTES)?;
    nonce(r)
}

/// `TlcReplayUpdate`: `AddTlc` or `RemoveTlc`.
fn replay_update(r: &mut Reader<'_>) -> Read {
    if r.variant(2)? == 0 {
        hash(r)?;
        r.skip(U64_BYTES + U128_BYTES)?;
        hash(r)?;
        r.skip(U64_BYTES)?;
        algorithm(r)?;
        return r.option(bytes).map(drop);
    }
    hash(r)?;
    r.skip(U64_BYTES)?;
    remove_reason(r)
}

/// `ExternalFundingPersistState`: a script, a list of texts, a transaction, the time (8), two steps (1 each).
fn external_funding(r: &mut Reader<'_>) -> Read {
    text(r)?;
    r.list(text)?;
    text(r)?;
    r.skip(U64_BYTES)?;
    r.bool()?;
    r.bool().map(drop)
}
