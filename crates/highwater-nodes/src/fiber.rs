//! Fiber, payment channels on CKB: `fiber/store` and the keys beside it, and the stores of those that it
//! hosts.
//!
//! A store is keys and values, in RocksDB or in SQLite. What is read of it here are pure functions over its
//! rows; [`FiberAdapter`] reads and writes them in a node directory that is not the node's yet, or no longer.
//!
//! | key | value |
//! |---|---|
//! | 0, id of the channel (32) | `ChannelActorData` |
//! | 64, key of the peer (33), id of the channel (32) | `ChannelState` |
//! | `db-version` | 14 digits |
//!
//! The values are bincode 1.3 of the types in `fiber-types`; the layout of both stands in the private module
//! `values`. A value that does not read to its last byte as the version of its store asks for is an error.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod reader;
mod sqlite;
mod store;
mod values;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;

use highwater::engine::Cell;
pub use highwater::engine::rocksdb::Rows;
use highwater::guard::{Adapter, ChannelRecord, Phase};
use highwater::ids::RelPath;
use highwater::vault::channel_mark;
use highwater::{Error, Result};
use highwater_guard::Ours;

use crate::profile::{Content, Files, Marks, Profile};
use reader::ReadFault;
pub use store::FiberAdapter;
use values::{Actor, Layout};
pub use values::{ChannelState, KEY_BYTES};

/// What the keys begin with of which all is known here: the functions below need no other row.
pub const PREFIXES: &[&[u8]] = &[&[ACTOR], &[INDEX], VERSION, &[HOSTED]];

const ACTOR: u8 = 0;
const INDEX: u8 = 64;
const VERSION: &[u8] = b"db-version";
/// How the keys of those begin that share the store of their host; what follows them is not known here.
const HOSTED: u8 = 0xFF;

/// The versions that releases have given their stores, each with the layout of its values. The node's
/// migrations name them (`migrate/src/migrations` until 0.8, `crates/fiber-store/src/migrations` later);
/// what a store is given is the newest one that its node knows.
const VERSIONS: [(&[u8], Layout); 4] = [
    // 0.7.0 and 0.7.1.
    (b"20260203152333", Layout::V07),
    // 0.8.0 and 0.8.1.
    (b"20260302100001", Layout::V08),
    // 0.9.0, 0.9.1 and 0.10.0-rc1, which had no migration of its own.
    (b"20260618120000", Layout::V09),
    // What comes after 0.10.0-rc1.
    (b"20260925120000", Layout::V10),
];

/// A payment channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The node's name of it.
    pub id: ChannelId,
    /// The key of the peer.
    pub peer: [u8; KEY_BYTES],
    /// How far it is.
    pub state: ChannelState,
    /// The flags of the state; 0 where it has none.
    pub flags: u32,
    /// The number of the peer's commitment: with each revocation that the peer sends it rises by 1.
    pub local: u64,
    /// The number of our own commitment: with each revocation that we send it rises by 1.
    pub remote: u64,
    /// We have signed a commitment that the peer has not answered yet.
    pub waiting_ack: bool,
}

/// The name that a node gives a channel; shown as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub [u8; 32]);

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Channel {
    /// What the guard asks first: whether an old copy of it could be punished.
    ///
    /// A node signs as soon as both have completed the funding transaction. One that waits for funds from
    /// outside may have signed while its state says that it negotiates.
    pub fn phase(&self) -> Phase {
        const FUNDED_OUTSIDE: u32 = 1 << 2;
        const BOTH_COMPLETE: u32 = 1 << 2 | 1 << 3;
        let unsigned = match self.state {
            ChannelState::Closed => return Phase::Closed,
            ChannelState::NegotiatingFunding => self.flags & FUNDED_OUTSIDE == 0,
            ChannelState::CollaboratingFundingTx => self.flags & BOTH_COMPLETE != BOTH_COMPLETE,
            _ => false,
        };
        if unsigned && !self.waiting_ack { Phase::Funding } else { Phase::Open }
    }

    /// Its numbers, as the guard compares them. Both begin at 2 when the channel is ready, on both sides, so
    /// that what the peer says when it comes back can be compared with them as it stands.
    pub fn ours(&self) -> Ours {
        Ours {
            signed: self.local.checked_add(u64::from(self.waiting_ack)),
            revoked: self.remote,
            received: self.local,
            closing: matches!(self.state, ChannelState::ShuttingDown | ChannelState::Closed),
            epoch: 0,
        }
    }

    /// As the guard lists it.
    pub fn record(&self) -> ChannelRecord {
        ChannelRecord { id: self.id.to_string(), phase: self.phase(), ours: self.ours() }
    }
}

/// The channels of a store, by their ids.
///
/// # Errors
/// Input where the version of the store is not known; corrupt where a row is none that such a node writes.
/// The name of the row is the error's entry.
pub fn channels(rows: &Rows) -> Result<Vec<Channel>> {
    let Some(layout) = layout(rows)? else { return Ok(Vec::new()) };
    actors(rows, layout).map(|actor| actor.map(|(_, _, actor)| told(&actor))).collect()
}

/// The marks of a store: the commitment numbers of each channel for which something may be signed, as the node
/// names them.
///
/// # Errors
/// As [`channels`].
pub fn marks(rows: &Rows) -> Result<Marks> {
    marks_below("", rows)
}

/// The same, of a store whose channels have names that begin so.
fn marks_below(prefix: &str, rows: &Rows) -> Result<Marks> {
    let mut marks = Marks::new();
    for channel in channels(rows)? {
        // Until then its name may change.
        if channel.phase() == Phase::Funding {
            continue;
        }
        let name = format!("{prefix}{}", channel.id);
        marks.insert(channel_mark(&name, "local"), channel.local);
        marks.insert(channel_mark(&name, "remote"), channel.remote);
    }
    Ok(marks)
}

/// The rows of a store that are to be written so that each channel in use has the node's own state for what
/// may be old, its row in the index as well; keys and values. All else of a value stays, byte for byte. Empty
/// where nothing is left to be written.
///
/// # Errors
/// As [`channels`]; input also where the node to which the store belongs does not know that state, corrupt
/// also where a channel and its row in the index say different things.
pub fn stale(rows: &Rows) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let Some(layout) = layout(rows)? else { return Ok(Vec::new()) };
    if !knows_stale(layout) {
        return Err(Error::input(
            "the node that wrote this store does not know the state that marks a channel as stale",
        )
        .with_entry(row(VERSION))
        .with_remedy("nothing in it was changed; it is held back by withholding it"));
    }
    let mut puts = Vec::new();
    for actor in actors(rows, layout) {
        let (key, value, actor) = actor?;
        if !takes_stale(actor.state) {
            continue;
        }
        let index = index_key(&actor.peer, &actor.id);
        let (state, listed) = indexed(rows, &index, layout)?;
        if !takes_stale(state) {
            return Err(Error::corrupt("the index of channels gives this channel another state")
                .with_entry(row(&index)));
        }
        for (state, key, value) in [(actor.state, key, value), (state, &index, listed)] {
            if state != ChannelState::Stale {
                let rest = value.get(ChannelState::BYTES..).unwrap_or_default();
                puts.push((key.clone(), [&ChannelState::Stale.to_bytes(), rest].concat()));
            }
        }
    }
    Ok(puts)
}

/// Whether a channel has the node's own state for what may be old, its row in the index as well.
fn is_marked(rows: &Rows, channel: &Channel) -> Result<bool> {
    let Some(layout) = layout(rows)?.filter(|_| channel.state == ChannelState::Stale) else {
        return Ok(false);
    };
    let (state, _) = indexed(rows, &index_key(&channel.peer, &channel.id.0), layout)?;
    Ok(state == ChannelState::Stale)
}

/// Whether that state fits the channel, and the node of this store knows it. A channel that is not ready yet would
/// become so by it, unfunded; one that is closing would be open again.
fn marks_fit(rows: &Rows, channel: &Channel) -> Result<bool> {
    Ok(takes_stale(channel.state) && knows_marks(rows)?)
}

/// Whether the node of this store knows that state.
fn knows_marks(rows: &Rows) -> Result<bool> {
    Ok(layout(rows)?.is_some_and(knows_stale))
}

fn knows_stale(layout: Layout) -> bool {
    layout >= Layout::V09
}

fn takes_stale(state: ChannelState) -> bool {
    matches!(state, ChannelState::ChannelReady | ChannelState::Stale)
}

/// The state that the index has of a channel, and the row.
fn indexed<'a>(rows: &'a Rows, key: &[u8], layout: Layout) -> Result<(ChannelState, &'a Vec<u8>)> {
    let Some(listed) = rows.get(key) else {
        return Err(Error::corrupt("the index of channels lacks this row").with_entry(row(key)));
    };
    let (state, _) = values::state(listed, layout).map_err(|fault| unread(key, fault))?;
    Ok((state, listed))
}

/// The layout of a store's values, by its version; `None` where it has neither channels nor a version.
fn layout(rows: &Rows) -> Result<Option<Layout>> {
    if let Some((key, _)) = rows.range(vec![HOSTED]..).next() {
        return Err(Error::input(
            "the store has rows of hosted nodes, which this version does not know",
        )
        .with_entry(row(key))
        .with_remedy(UNKNOWN));
    }
    let Some(version) = rows.get(VERSION) else {
        let channels = rows.keys().any(|key| matches!(key.first(), Some(&ACTOR | &INDEX)));
        return match channels {
            false => Ok(None),
            true => {
                Err(Error::corrupt("the store has channels, and no version")
                    .with_entry(row(VERSION)))
            }
        };
    };
    match VERSIONS.iter().find(|(known, _)| known == version) {
        Some((_, layout)) => Ok(Some(*layout)),
        None => Err(Error::input(format!(
            "the store has the version {}, which is not known here",
            version.get(..VERSION_SHOWN_MAX).unwrap_or(version).escape_ascii()
        ))
        .with_entry(row(VERSION))
        .with_remedy(UNKNOWN)),
    }
}

/// So much of a version is shown.
const VERSION_SHOWN_MAX: usize = 32;
const UNKNOWN: &str = "nothing in it was read or changed: a newer version of highwater may know it; until then it \
                       is held back by withholding it";

/// The channels of a store, each with its row.
fn actors(
    rows: &Rows,
    layout: Layout,
) -> impl Iterator<Item = Result<(&Vec<u8>, &Vec<u8>, Actor)>> {
    rows.range(vec![ACTOR]..vec![ACTOR + 1]).map(move |(key, value)| {
        let actor = values::actor(value, layout).map_err(|fault| unread(key, fault))?;
        if key.get(1..) != Some(&actor.id) {
            return Err(Error::corrupt("the row is of another channel than its key says")
                .with_entry(row(key)));
        }
        Ok((key, value, actor))
    })
}

fn told(actor: &Actor) -> Channel {
    let Actor { id, peer, state, flags, local, remote, waiting_ack } = *actor;
    Channel { id: ChannelId(id), peer, state, flags, local, remote, waiting_ack }
}

fn index_key(peer: &[u8; KEY_BYTES], id: &[u8; 32]) -> Vec<u8> {
    [&[INDEX], &peer[..], id].concat()
}

/// The name of a row: what its key begins with, and the rest in hexadecimal digits.
fn row(key: &[u8]) -> String {
    const SHOWN_MAX: usize = 128;
    match key.split_first() {
        Some(_) if key == VERSION => "db-version".to_owned(),
        Some((kind, rest)) => {
            format!("{kind}/{}", hex::encode(rest.get(..SHOWN_MAX).unwrap_or(rest)))
        }
        None => "a row without a key".to_owned(),
    }
}

fn unread(key: &[u8], ReadFault { at, expected }: ReadFault) -> Error {
    Error::corrupt(format!("the row is not one that a Fiber node of this version writes: at byte {at}, expected {expected}"))
        .with_entry(row(key))
}

/// The store of the node, and the one that its hosted nodes share.
const STORES: [&str; 2] = ["fiber/store", "lsp/store"];
/// Where each hosted node has a directory.
const TENANTS: &str = "lsp/tenants";
/// The file without which a store in RocksDB can't be opened.
const ROCKSDB: &str = "CURRENT";
/// The database of a store in SQLite.
const SQLITE: &str = "data.sqlite";

pub(crate) struct Fiber;

impl Profile for Fiber {
    fn name(&self) -> &'static str {
        "fiber"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        let mut found: Vec<RelPath> = STORES.iter().flat_map(|store| files.with(store)).collect();
        found.sort();
        found.dedup();
        found
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a node that runs on an old store publishes commitments that it has revoked, and its peers take all \
         that is in those channels",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[&["fiber/sk"], &["ckb/key"]]
    }

    fn lean(&self) -> &'static [&'static str] {
        &["fiber/backups"]
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(
            "Before a release compare each channel with its peer: where the peer is backed up, its commitment numbers \
             are marks of that backup. A channel whose peer is ahead is for the peer to close: that costs the channel, \
             the fees and the delay. To release it keeps the channel; if the store is not the newest state, that costs \
             all that is in it.",
        )
    }

    fn second_belt(&self) -> Option<Arc<dyn Adapter>> {
        Some(Arc::new(FiberAdapter))
    }

    /// Each store that can't be read is an error; the marks of those before it stay.
    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        let mut stores: Vec<String> = STORES.iter().map(|store| (*store).to_owned()).collect();
        let tenants = content.path(TENANTS);
        for path in content.inside(TENANTS) {
            let tenant = path.parent().filter(|tenant| tenant.parent().as_ref() == Some(&tenants));
            if let Some(name) = tenant.as_ref().and_then(|tenant| tenant.name().to_str()) {
                stores.push(format!("{TENANTS}/{name}"));
            }
        }
        stores.dedup();
        for store in stores {
            let Some(rows) = captured(content, &store)? else { continue };
            // A hosted node may have a channel of the same name.
            let prefix = if store == STORES[0] { String::new() } else { format!("{store}/") };
            let told = |error| store::of_store(&content.path(&store), error);
            marks.extend(marks_below(&prefix, &rows).map_err(told)?);
        }
        Ok(())
    }
}

/// The rows of a captured store; `None` where there is none.
fn captured(content: &mut Content<'_, '_>, store: &str) -> Result<Option<Rows>> {
    let sqlite = format!("{store}/{SQLITE}");
    if content.has(&sqlite) {
        return of_cells(content.query(&sqlite, ROWS)?).map(Some);
    }
    if content.has(&format!("{store}/{ROCKSDB}")) {
        return content.rows(store, PREFIXES).map(Some);
    }
    Ok(None)
}

/// The rows whose keys begin with one of [`PREFIXES`].
const ROWS: &str = "SELECT key, value FROM kv_store WHERE key >= x'00' AND key < x'01' \
                    UNION ALL SELECT key, value FROM kv_store WHERE key >= x'40' AND key < x'41' \
                    UNION ALL SELECT key, value FROM kv_store WHERE key = CAST('db-version' AS BLOB) \
                    UNION ALL SELECT key, value FROM kv_store WHERE key >= x'FF'";

fn of_cells(found: Vec<Vec<Cell>>) -> Result<Rows> {
    let mut rows = Rows::new();
    for row in found {
        match row.as_slice() {
            [Cell::Bytes(key), Cell::Bytes(value)] => drop(rows.insert(key.clone(), value.clone())),
            _ => return Err(Error::corrupt("the store has a row that is not bytes")),
        }
    }
    Ok(rows)
}
