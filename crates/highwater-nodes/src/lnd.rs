//! lnd: `data/graph/<network>/channel.db` (bbolt) or `channel.sqlite`, wallets beside it.
//!
//! A channel is a bucket below `open-chan-bucket`, the peer's key, the chain's hash and the funding output
//! (`channeldb/channel.go`). In SQLite each key is a row that names its bucket's (`kvdb/sqlbase/schema.go`).

use std::collections::BTreeSet;

use highwater::engine::bolt::{Bolt, Bucket};
use highwater::engine::{Cell, Row};
use highwater::ids::RelPath;
use highwater::vault::channel_mark;
use highwater::{Error, Result};

use crate::profile::{Content, Files, Marks, Profile, below};

/// Where lnd keeps the channels of each network.
const GRAPHS: [&str; 2] = ["channel.db", "channel.sqlite"];

const BBOLT: &str = GRAPHS[0];
const SQLITE: &str = GRAPHS[1];
const CHANNELS: &[u8] = b"open-chan-bucket";
const OUTPUTS: &[u8] = b"outpoint-bucket";
/// Where the commitments of a channel are: ours, the peer's, and the peer's next one, which we have signed and it has
/// not revoked the one before yet. Each begins with its height.
const HEIGHTS: [(&[u8], &str); 3] = [
    (b"chan-commitment-key\0", "local"),
    (b"chan-commitment-key\x01", "remote"),
    (b"commit-diff-key", "remote"),
];
/// What is read of a value.
const HEAD_BYTES: usize = 8;
const OUTPUT_ROWS: &str = "SELECT it.key, it.value FROM channeldb_kv AS top \
     JOIN channeldb_kv AS it ON it.parent_id = top.id \
     WHERE top.parent_id IS NULL AND top.key = CAST('outpoint-bucket' AS BLOB)";
const HEIGHT_ROWS: &str = "SELECT channel.key, it.key, substr(it.value, 1, 8) FROM channeldb_kv AS top \
     JOIN channeldb_kv AS peer ON peer.parent_id = top.id \
     JOIN channeldb_kv AS chain ON chain.parent_id = peer.id \
     JOIN channeldb_kv AS channel ON channel.parent_id = chain.id \
     JOIN channeldb_kv AS it ON it.parent_id = channel.id \
     WHERE top.parent_id IS NULL AND top.key = CAST('open-chan-bucket' AS BLOB) \
     AND it.value IS NOT NULL \
     AND it.key IN (CAST('chan-commitment-key' || char(0) AS BLOB), \
     CAST('chan-commitment-key' || char(1) AS BLOB), CAST('commit-diff-key' AS BLOB))";

pub(crate) struct Lnd;

impl Profile for Lnd {
    fn name(&self) -> &'static str {
        "lnd"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        let graph = |dir: &RelPath| {
            let above = dir.parent()?;
            (above.name() == "graph").then(|| dir.clone())
        };
        GRAPHS.iter().flat_map(|name| files.with(name)).filter_map(|dir| graph(&dir)).collect()
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a node that runs on an old channel database publishes commitments that it has revoked, and its peers \
         take all that is in those channels",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(
            "The safe way back is the static backup, `channel.backup`, which is not withheld: a new node of the same \
             seed takes it by `lncli restorechanbackup`, and its peers close the channels. That costs the \
             channels, the fees of their closing, and days. To release the database keeps the channels; if it is not \
             the newest state, that costs all that is in them.",
        )
    }

    /// Beside the wallet; lnd writes it anew whenever a channel is opened or closed.
    fn watched(&self, at: &RelPath) -> Vec<RelPath> {
        let network = at.name().to_string_lossy().into_owned();
        let data = at.parent().and_then(|graph| graph.parent());
        let chain =
            |data: RelPath| below(&data, &format!("chain/bitcoin/{network}/channel.backup"));
        data.map(chain).into_iter().collect()
    }

    /// Of each open channel the number of our commitment (`local`) and of the peer's (`remote`), which rises once we
    /// have signed it, revoked or not.
    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        if content.has(BBOLT) {
            of_bbolt(&mut content.bolt(BBOLT)?, marks)?;
        }
        if content.has(SQLITE) {
            of_sqlite(content, marks)?;
        }
        Ok(())
    }
}

fn of_bbolt(database: &mut Bolt, marks: &mut Marks) -> Result<()> {
    let root = database.root();
    let outputs = database.find(root, OUTPUTS)?.and_then(|item| item.bucket());
    let Some(open) = database.find(root, CHANNELS)?.and_then(|item| item.bucket()) else {
        return Ok(());
    };
    let mut buckets = vec![open];
    // By the peer's key, then by the chain's hash.
    for _ in 0..2 {
        let mut inner = Vec::new();
        for bucket in buckets {
            let items = database.items(bucket)?.into_iter();
            inner.extend(items.filter_map(|(_, item)| item.bucket()));
        }
        buckets = inner;
    }
    for chain in buckets {
        for (output, item) in database.items(chain)? {
            let Some(channel) = item.bucket() else { continue };
            if let Some(outputs) = outputs
                && is_closed(&value(database, outputs, &output)?.unwrap_or_default())
            {
                continue;
            }
            for (key, what) in HEIGHTS {
                if let Some(bytes) = value(database, channel, key)? {
                    raise(marks, &output, what, &bytes)?;
                }
            }
        }
    }
    Ok(())
}

fn value(database: &mut Bolt, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let found = database.find(bucket, key)?.and_then(|item| item.value());
    found.map(|value| database.head(value, HEAD_BYTES)).transpose()
}

fn of_sqlite(content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
    let cell = |row: &Row, column: usize| row.get(column).and_then(Cell::bytes).map(<[u8]>::to_vec);
    let mut closed = BTreeSet::new();
    for row in content.query(SQLITE, OUTPUT_ROWS)? {
        if let (Some(output), Some(status)) = (cell(&row, 0), cell(&row, 1))
            && is_closed(&status)
        {
            closed.insert(output);
        }
    }
    for row in content.query(SQLITE, HEIGHT_ROWS)? {
        let (Some(output), Some(key), Some(bytes)) = (cell(&row, 0), cell(&row, 1), cell(&row, 2))
        else {
            continue;
        };
        let what = HEIGHTS.iter().find(|(known, _)| **known == key[..]);
        if let (Some((_, what)), false) = (what, closed.contains(&output)) {
            raise(marks, &output, what, &bytes)?;
        }
    }
    Ok(())
}

/// Whether a row of the index of outputs says that the channel is closed: a type 0 of one byte that is 1
/// (`isOutpointClosed`). Where a backend marks closed channels only there, their buckets stay.
fn is_closed(status: &[u8]) -> bool {
    status.starts_with(&[0, 1, 1])
}

/// Raises the mark of a channel by the height at the beginning of a commitment.
fn raise(marks: &mut Marks, output: &[u8], what: &str, commitment: &[u8]) -> Result<()> {
    let height = commitment.first_chunk().copied().map(u64::from_be_bytes);
    let height =
        height.ok_or_else(|| Error::corrupt("a commitment is cut").with_entry(id(output)))?;
    let highest = marks.entry(channel_mark(&id(output), what)).or_default();
    *highest = height.max(*highest);
    Ok(())
}

/// A funding output as people write it: the transaction's id, whose bytes are stored backwards, and the number.
fn id(output: &[u8]) -> String {
    let hex =
        |bytes: &[u8]| bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>();
    match output.split_at_checked(32).map(|(txid, index)| (txid, index.first_chunk().copied())) {
        Some((txid, Some(index))) => format!("{}:{}", hex(txid), u32::from_be_bytes(index)),
        _ => hex(output),
    }
}
