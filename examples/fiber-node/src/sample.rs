//! Channels, as three generations of the node keep them.
//!
//! The crate's own samples are one with nothing that is optional and one with all of it. What is made of the
//! two here has, field by field, what one or the other has, in every state.

/// A channel as its own crate reads it, and its bytes.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The version that such a node gives its store.
    pub version: &'static str,
    pub id: [u8; 32],
    pub peer: [u8; 33],
    /// The number of its state.
    pub state: u32,
    pub flags: u32,
    pub local: u64,
    pub remote: u64,
    pub waiting_ack: bool,
    /// The channel.
    pub value: Vec<u8>,
    /// Its state in the index.
    pub index: Vec<u8>,
}

impl Sample {
    /// The key of the channel.
    pub fn key(&self) -> Vec<u8> {
        [&[fiber_types::schema::CHANNEL_ACTOR_STATE_PREFIX][..], &self.id].concat()
    }

    /// The key of its row in the index.
    pub fn index_key(&self) -> Vec<u8> {
        [&[fiber_types::schema::PUBKEY_CHANNEL_ID_PREFIX][..], &self.peer, &self.id].concat()
    }
}

/// Numbers that look random, the same each time (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut next = self.0;
        next = (next ^ (next >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        next = (next ^ (next >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        next ^ (next >> 31)
    }

    fn coin(&mut self) -> bool {
        self.draw() & 1 == 1
    }
}

/// One generation of the crate: `$types` is the crate, `$later` the fields that older ones lack.
macro_rules! generation {
    ($name:ident, $types:ident, [$($later:ident),*], [$($stale:ident)?], $more:path) => {
        pub mod $name {
            use $types::sample::StoreSample as _;
            use $types::*;

            use super::{Numbers, Sample};

            /// The states that this generation knows, in their order, with flags where they have some.
            pub fn states(numbers: &mut Numbers) -> Vec<ChannelState> {
                vec![
                    ChannelState::NegotiatingFunding(flags(numbers, NegotiatingFundingFlags::all().bits(), NegotiatingFundingFlags::from_bits_truncate)),
                    ChannelState::CollaboratingFundingTx(flags(numbers, CollaboratingFundingTxFlags::all().bits(), CollaboratingFundingTxFlags::from_bits_truncate)),
                    ChannelState::SigningCommitment(flags(numbers, SigningCommitmentFlags::all().bits(), SigningCommitmentFlags::from_bits_truncate)),
                    ChannelState::AwaitingTxSignatures(flags(numbers, AwaitingTxSignaturesFlags::all().bits(), AwaitingTxSignaturesFlags::from_bits_truncate)),
                    ChannelState::AwaitingChannelReady(flags(numbers, AwaitingChannelReadyFlags::all().bits(), AwaitingChannelReadyFlags::from_bits_truncate)),
                    ChannelState::ChannelReady,
                    ChannelState::ShuttingDown(flags(numbers, ShuttingDownFlags::all().bits(), ShuttingDownFlags::from_bits_truncate)),
                    ChannelState::Closed(flags(numbers, CloseFlags::all().bits(), CloseFlags::from_bits_truncate)),
                    $(ChannelState::$stale,)?
                ]
            }

            fn flags<F>(numbers: &mut Numbers, all: u32, make: impl Fn(u32) -> F) -> F {
                make(numbers.draw() as u32 & all)
            }

            /// A channel that has, field by field, what the empty or the full sample has.
            pub fn mixed(seed: u64, state: ChannelState) -> ChannelActorData {
                let numbers = &mut Numbers(seed);
                let [mut data, full] = <[_; 2]>::try_from(ChannelActorData::samples(seed))
                    .unwrap_or_else(|samples| panic!("there are {} samples", samples.len()));
                macro_rules! mix {
                    ($field:ident) => {
                        if numbers.coin() {
                            data.$field = full.$field.clone();
                        }
                    };
                }
                mix!(public_channel_info);
                mix!(remote_tlc_info);
                mix!(funding_tx);
                mix!(funding_tx_confirmed_at);
                mix!(funding_udt_type_script);
                mix!(is_acceptor);
                mix!(is_one_way);
                mix!(tlc_state);
                mix!(retryable_tlc_operations);
                mix!(waiting_forward_tlc_tasks);
                mix!(remote_shutdown_script);
                mix!(last_committed_remote_nonce);
                mix!(remote_revocation_nonce_for_verify);
                mix!(remote_revocation_nonce_for_send);
                mix!(remote_revocation_nonce_for_next);
                mix!(latest_commitment_transaction);
                mix!(remote_commitment_points);
                mix!(remote_channel_public_keys);
                mix!(local_shutdown_info);
                mix!(remote_shutdown_info);
                mix!(shutdown_transaction_hash);
                mix!(reestablishing);
                mix!(last_revoke_ack_msg);
                mix!(last_was_revoke);
                $(mix!($later);)*
                data.id = sample::deterministic_hash256(seed, 1);
                data.remote_pubkey = sample::deterministic_pubkey(seed, 2);
                data.state = state;
                data.commitment_numbers =
                    CommitmentNumbers { local: numbers.draw() >> 20, remote: numbers.draw() >> 20 };
                inner(&mut data, &full, numbers);
                $more(&mut data, numbers);
                data
            }

            /// The same in what lies inside of fields, and a list of what is to be replayed.
            fn inner(data: &mut ChannelActorData, full: &ChannelActorData, numbers: &mut Numbers) {
                if let Some(info) = &mut data.public_channel_info {
                    if numbers.coin() {
                        info.local_channel_announcement_signature = None;
                    }
                    if numbers.coin() {
                        info.channel_announcement = None;
                    }
                    if let Some(announcement) = &mut info.channel_announcement {
                        announcement.udt_type_script = None;
                        announcement.ckb_signature = None;
                    }
                }
                let mut tlcs: Vec<TlcInfo> = full.tlc_state.all_tlcs().cloned().collect();
                for tlc in &mut tlcs {
                    tlc.status = match numbers.draw() % 12 {
                        0 => TlcStatus::Outbound(OutboundTlcStatus::Committed),
                        1 => TlcStatus::Outbound(OutboundTlcStatus::RemoveAckConfirmed),
                        2 => TlcStatus::Inbound(InboundTlcStatus::RemoveAckConfirmed),
                        _ => tlc.status.clone(),
                    };
                    if numbers.coin() {
                        (tlc.total_amount, tlc.payment_secret, tlc.attempt_id) = (None, None, None);
                    }
                    if numbers.coin() {
                        (tlc.removed_reason, tlc.removed_confirmed_at) = (None, None);
                    }
                    if numbers.coin() {
                        (tlc.onion_packet, tlc.forwarding_tlc) = (None, None);
                    }
                }
                let tlc = tlcs[0].clone();
                data.tlc_state.offered_tlcs.tlcs.extend(tlcs);
                for shutdown in [&mut data.local_shutdown_info, &mut data.remote_shutdown_info] {
                    if let Some(shutdown) = shutdown.as_mut().filter(|_| numbers.coin()) {
                        shutdown.signature = None;
                    }
                }
                let add = AddTlc {
                    channel_id: data.id,
                    tlc_id: 7,
                    amount: u128::MAX,
                    payment_hash: tlc.payment_hash,
                    expiry: 3,
                    hash_algorithm: HashAlgorithm::Sha256,
                    onion_packet: numbers.coin().then(|| PaymentOnionPacket::new(vec![0xAB; 40])),
                };
                let fail = RemoveTlcReason::RemoveTlcFail(TlcErrPacket { onion_packet: vec![1; 30] });
                let remove = RemoveTlc { channel_id: data.id, tlc_id: 8, reason: fail };
                for _ in 0..numbers.draw() % 4 {
                    data.pending_replay_updates.push(match numbers.coin() {
                        true => TlcReplayUpdate::Add(add.clone()),
                        false => TlcReplayUpdate::Remove(remove.clone()),
                    });
                }
            }

            /// As the node stores it.
            pub fn stored(version: &'static str, data: &ChannelActorData) -> Sample {
                let index = serialize(&data.state).unwrap_or_default();
                let word = |at: usize| {
                    index.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes)
                };
                Sample {
                    version,
                    id: <[u8; 32]>::try_from(data.id.as_ref()).unwrap_or_default(),
                    peer: data.remote_pubkey.serialize(),
                    state: word(0).unwrap_or(u32::MAX),
                    flags: word(4).unwrap_or(0),
                    local: data.commitment_numbers.local,
                    remote: data.commitment_numbers.remote,
                    waiting_ack: data.tlc_state.waiting_ack,
                    value: serialize(data).unwrap_or_default(),
                    index,
                }
            }

            /// Channels in every state, `each` of each.
            pub fn channels(version: &'static str, seed: u64, each: u64) -> Vec<Sample> {
                let mut samples = Vec::new();
                for round in 0..each {
                    let states = states(&mut Numbers(seed ^ round));
                    for (number, state) in states.into_iter().enumerate() {
                        let seed = seed.wrapping_add(round << 8).wrapping_add(number as u64);
                        samples.push(stored(version, &mixed(seed, state)));
                    }
                }
                samples
            }
        }
    };
}

generation!(v08, fiber_types_08, [], [], super::nothing_08);
generation!(v09, fiber_types_09, [connectivity_state], [Stale], super::funding_09);
generation!(
    v10,
    fiber_types,
    [connectivity_state, commitment_contract_features],
    [Stale],
    super::funding_10
);

fn nothing_08(_: &mut fiber_types_08::ChannelActorData, _: &mut Numbers) {}

macro_rules! funding {
    ($name:ident, $types:ident) => {
        /// Half of the channels are funded from outside.
        fn $name(data: &mut $types::ChannelActorData, numbers: &mut Numbers) {
            if numbers.coin() {
                data.external_funding = Some($types::ExternalFundingPersistState {
                    funding_lock_script: Default::default(),
                    funding_lock_script_cell_deps: vec![
                        Default::default();
                        (numbers.draw() % 3) as usize
                    ],
                    unsigned_funding_tx: Default::default(),
                    started_at_ms: numbers.draw(),
                    signed_submitted: numbers.coin(),
                    peer_commitment_signed_received: numbers.coin(),
                });
            }
        }
    };
}

funding!(funding_09, fiber_types_09);
funding!(funding_10, fiber_types);

/// The versions of stores, as the releases of the node give them.
pub const VERSION_07: &str = "20260203152333";
pub const VERSION_08: &str = "20260302100001";
/// Of 0.9, and of 0.10.0-rc1.
pub const VERSION_09: &str = "20260618120000";
/// Of what comes after it.
pub const VERSION_10: &str = "20260925120000";

/// Channels of 0.7, of which no crate was published: what the node's own migration to 0.8 appends is taken
/// away again, an empty list and a `false` (`migrate/src/migrations/mig_20260302_channel_replay_fields.rs`).
pub fn v07_channels(seed: u64, each: u64) -> Vec<Sample> {
    let mut samples = Vec::new();
    for round in 0..each {
        for (number, state) in v08::states(&mut Numbers(seed ^ round)).into_iter().enumerate() {
            let seed = seed.wrapping_add(round << 8).wrapping_add(number as u64);
            let mut data = v08::mixed(seed, state);
            data.pending_replay_updates.clear();
            data.last_was_revoke = false;
            let mut sample = v08::stored(VERSION_07, &data);
            sample.value.truncate(sample.value.len() - 9);
            samples.push(sample);
        }
    }
    samples
}

/// Channels of each generation in each state it knows, `each` of each.
pub fn all(seed: u64, each: u64) -> Vec<Sample> {
    [
        v07_channels(seed, each),
        v08::channels(VERSION_08, seed + (1 << 32), each),
        v09::channels(VERSION_09, seed + (2 << 32), each),
        v10::channels(VERSION_09, seed + (3 << 32), each),
        v10::channels(VERSION_10, seed + (4 << 32), each),
    ]
    .concat()
}

/// The name of a channel, by a number.
pub fn id(number: u32) -> fiber_types::Hash256 {
    fiber_types::sample::deterministic_hash256(1 << 40, number)
}
