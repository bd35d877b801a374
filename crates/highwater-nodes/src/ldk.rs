//! Nodes made of LDK: `ldk-node` and LDK Server, whose store is a SQLite, and any that keeps its store as
//! files (`lightning-persister`).
//!
//! A monitor is two optional bytes FF FF, two bytes of version, and the number of its last update
//! (`chain/channelmonitor.rs` of `lightning`); later updates lie beside it, by their numbers.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use highwater::engine::Cell;
use highwater::ids::RelPath;
use highwater::vault::channel_mark;
use highwater::{Error, Result};

use crate::profile::{Content, Files, Marks, Profile};
use crate::rgb_lightning_node;

const DATABASE: &str = "ldk_node_data.sqlite";
const MONITOR_ROWS: &str = "SELECT key, rowid AS \"head:ldk_node_data:value:12\" FROM ldk_node_data \
     WHERE primary_namespace = 'monitors'";
const UPDATE_ROWS: &str = "SELECT secondary_namespace, key FROM ldk_node_data WHERE primary_namespace = 'monitor_updates'";
const MONITORS: &str = "monitors";
const UPDATES: &str = "monitor_updates";
/// What is enough of a monitor: the bytes before the number, and it.
const HEAD_BYTES: u64 = 12;
/// Stands where the channel is closed.
const CLOSED: u64 = u64::MAX;
/// So many channels have a mark each; of more the highest number alone is one.
const CHANNELS_MAX: usize = 10_000;

const DANGER: &str = "a node that runs on old monitors publishes commitments that it has revoked, and its \
                      peers take all that is in those channels";

pub(crate) const WAY_OUT: &str = "There is no static backup. Where nobody knows that this is the newest state, ask each peer to close its channel \
     before anything is released: that costs the channel, the fee of its closing, and days. To release the store keeps the \
     channels; if it is not the newest state, that costs all that is in them.";

/// `ldk-node` and LDK Server.
pub(crate) struct LdkNode;

/// Any node that keeps LDK's store as files.
pub(crate) struct LdkFilesystem;

impl Profile for LdkNode {
    fn name(&self) -> &'static str {
        "ldk-node"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with(DATABASE)
    }

    fn danger(&self) -> Option<&'static str> {
        Some(DANGER)
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        // Who gives the words at each start keeps no seed here.
        &[]
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(WAY_OUT)
    }

    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        let mut updates = Updates::default();
        for row in content.query(DATABASE, MONITOR_ROWS)? {
            let (Some(channel), Some(head)) =
                (row.first().and_then(Cell::text), row.get(1).and_then(Cell::bytes))
            else {
                return Err(Error::corrupt("a monitor has no name or no content"));
            };
            updates.monitor(channel, head)?;
        }
        for row in content.query(DATABASE, UPDATE_ROWS)? {
            let text = |column| row.get(column).and_then(Cell::text);
            if let (Some(channel), Some(number)) = (text(0), text(1).and_then(|id| id.parse().ok()))
            {
                updates.raise(channel, number);
            }
        }
        updates.tell(marks);
        Ok(())
    }
}

impl Profile for LdkFilesystem {
    fn name(&self) -> &'static str {
        "ldk-filesystem"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        let both = |at: &RelPath| files.inside(at, MONITORS).any(|path| is_channel(path.name()));
        let stores = files.with("manager").into_iter().filter(both);
        stores.filter(|at| !rgb_lightning_node::has(files, at)).collect()
    }

    fn danger(&self) -> Option<&'static str> {
        Some(DANGER)
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    fn lean(&self) -> &'static [&'static str] {
        &["network_graph", "scorer"]
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &["manager"]
    }

    /// A manager that is older or newer than its monitors is refused by LDK, or closes its channels.
    fn stores(&self) -> &'static [&'static str] {
        &["manager", MONITORS, UPDATES, "archived_monitors"]
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(WAY_OUT)
    }

    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        read_files(content, "", marks)
    }
}

/// Adds the marks of a store of files in the directory `store`, which ends with a slash where it has a name.
pub(crate) fn read_files(
    content: &mut Content<'_, '_>,
    store: &str,
    marks: &mut Marks,
) -> Result<()> {
    let mut updates = Updates::default();
    for path in content.inside(&format!("{store}{MONITORS}")) {
        if is_channel(path.name()) {
            let head = content.head(&path, HEAD_BYTES)?;
            updates.monitor(&path.name().to_string_lossy(), &head)?;
        }
    }
    for path in content.inside(&format!("{store}{UPDATES}")) {
        let channel = path.parent().map(|above| above.name().to_string_lossy().into_owned());
        let number = path.name().to_str().and_then(|name| name.parse().ok());
        if let (Some(channel), Some(number)) = (channel, number) {
            updates.raise(&channel, number);
        }
    }
    updates.tell(marks);
    Ok(())
}

/// Whether a file is a monitor's, by its name: the funding transaction and the number of its output.
fn is_channel(name: &OsStr) -> bool {
    let Some((transaction, output)) = name.to_str().and_then(|name| name.split_once('_')) else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    transaction.len() == 64
        && transaction.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !output.is_empty()
        && digits(output)
}

/// Channels and the numbers of their last updates.
#[derive(Default)]
struct Updates(BTreeMap<String, u64>);

impl Updates {
    /// Takes the number of a monitor's last update; one of a closed channel has none.
    fn monitor(&mut self, channel: &str, head: &[u8]) -> Result<()> {
        let rest = head.strip_prefix(&[0xFF, 0xFF]).unwrap_or(head);
        let number =
            rest.get(2..10).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let number = number
            .ok_or_else(|| Error::corrupt("a monitor is cut").with_entry(channel.to_owned()))?;
        if number != CLOSED {
            self.raise(channel, number);
        }
        Ok(())
    }

    fn raise(&mut self, channel: &str, number: u64) {
        let highest = self.0.entry(channel.to_owned()).or_default();
        *highest = number.max(*highest);
    }

    fn tell(self, marks: &mut Marks) {
        if self.0.len() <= CHANNELS_MAX {
            let named = self.0.into_iter();
            marks.extend(named.map(|(channel, number)| (channel_mark(&channel, "update"), number)));
        } else if let Some(highest) = self.0.into_values().max() {
            marks.insert("update".to_owned(), highest);
        }
    }
}
