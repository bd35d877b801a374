//! rgb-lightning-node: LDK's store as files in `.ldk` (`src/ldk.rs`), and rgb-lib's wallet in a directory that is
//! named by its fingerprint.

use highwater::ids::RelPath;
use highwater::{Error, Result};

use crate::ldk::{WAY_OUT, read_files};
use crate::profile::{Content, Files, Marks, Profile};

/// LDK's store, and the database of a wallet of rgb-lib.
const STORE: &str = ".ldk";
const WALLET: &str = "rgb_lib_db";
/// When rgb-lib did something last, in seconds.
const OPERATION: &str = "SELECT last_operation_timestamp FROM backup_info";

pub(crate) struct RgbLightningNode;

/// Whether the LDK store `store` is that of such a node.
pub(crate) fn has(files: &Files<'_>, store: &RelPath) -> bool {
    store.name() == STORE && store.parent().is_some_and(|at| has_wallet(files, &at))
}

fn has_wallet(files: &Files<'_>, at: &RelPath) -> bool {
    files.with(WALLET).iter().any(|wallet| wallet.parent().as_ref() == Some(at))
}

impl Profile for RgbLightningNode {
    fn name(&self) -> &'static str {
        "rgb-lightning-node"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with(".ldk/manager").into_iter().filter(|at| has_wallet(files, at)).collect()
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a node that runs on old monitors publishes commitments that it has revoked, and its peers take all that \
             is in those channels; with an old wallet assets are lost",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[&["mnemonic"]]
    }

    fn lean(&self) -> &'static [&'static str] {
        &[".ldk/logs", ".ldk/network_graph", ".ldk/scorer"]
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &[".ldk/manager"]
    }

    fn stores(&self) -> &'static [&'static str] {
        &[".ldk/manager", ".ldk/monitors", ".ldk/monitor_updates", ".ldk/archived_monitors"]
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(WAY_OUT)
    }

    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        read_files(content, ".ldk/", marks)?;
        for wallet in content.databases(WALLET) {
            for row in content.query(&wallet, OPERATION)? {
                let cell = row.first();
                let number = cell.and_then(|cell| {
                    let text = cell.text().and_then(|text| text.parse().ok());
                    text.or_else(|| u64::try_from(cell.integer()?).ok())
                });
                let number = number.ok_or_else(|| {
                    Error::corrupt("last_operation_timestamp is not a time")
                        .with_entry(wallet.clone())
                })?;
                let highest = marks.entry("rgb_operation".to_owned()).or_default();
                *highest = number.max(*highest);
            }
        }
        Ok(())
    }
}
