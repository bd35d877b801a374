//! Core Lightning: `lightningd.sqlite3` and `hsm_secret` in the directory of a network
//! (`wallet/migrations.c`, `db/exec.c`, `wallet/wallet.c` of Core Lightning).

use highwater::engine::Cell;
use highwater::ids::RelPath;
use highwater::vault::channel_mark;
use highwater::{Error, Result};

use crate::profile::{Content, Files, Marks, Profile, number};

const DATABASE: &str = "lightningd.sqlite3";

pub(crate) struct CoreLightning;

impl Profile for CoreLightning {
    fn name(&self) -> &'static str {
        "core-lightning"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with(DATABASE)
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a node that runs on an old database publishes commitments that it has revoked, and its peers take \
         all that is in those channels",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[&["hsm_secret"]]
    }

    fn lean(&self) -> &'static [&'static str] {
        &["gossip_store"]
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(
            "The safe way back is `emergency.recover`, which is not withheld: a new node with it and this `hsm_secret` \
             calls `lightning-cli emergencyrecover`, and its peers close the channels. That costs the channels, the fees \
             of their closing, and days. To release the database keeps the channels; if it is not the newest state, that \
             costs all that is in them.",
        )
    }

    /// `data_version` rises with every transaction that writes; the indexes of a channel with each commitment,
    /// ours (`local`) and the peer's (`remote`).
    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        let version = "SELECT intval FROM vars WHERE name = 'data_version'";
        let rows = content.query(DATABASE, version)?;
        let row = rows.first().ok_or_else(|| Error::corrupt("it has no data_version"))?;
        marks.insert("data_version".to_owned(), number(row, 0, "data_version")?);
        // Before 0.10 a channel had no id of its own in the table.
        let known = "SELECT 1 FROM pragma_table_info('channels') WHERE name = 'full_channel_id'";
        let named = match content.query(DATABASE, known)?.is_empty() {
            true => "SELECT id, NULL, next_index_local, next_index_remote FROM channels",
            false => {
                "SELECT id, lower(hex(full_channel_id)), next_index_local, next_index_remote FROM channels"
            }
        };
        for row in content.query(DATABASE, named)? {
            let number_of = number(&row, 0, "the id of a channel")?;
            let id = row.get(1).and_then(Cell::text).filter(|id| !id.is_empty());
            let id = id.map_or_else(|| format!("number-{number_of}"), str::to_owned);
            let local = number(&row, 2, "next_index_local")?;
            let remote = number(&row, 3, "next_index_remote")?;
            marks.insert(channel_mark(&id, "local"), local);
            marks.insert(channel_mark(&id, "remote"), remote);
        }
        Ok(())
    }
}
