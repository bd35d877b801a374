//! Nodes made of LDK: `ldk-node` and LDK Server, whose store is a SQLite, and any that keeps its store as
//! files (`lightning-persister`).
//!
//! A monitor is two optional bytes FF FF, two bytes of version, and the number of its last update
//! (`chain/channelmonitor.rs` of `lightning`); later updates lie beside it, by their numbers.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use highwater::backup::Wanted;
use highwater::ids::RelPath;
use highwater::{Error, Result};

use crate::profile::{Content, Files, Profile, below};
use crate::sqlite::{damaged, open};

const DATABASE: &str = "ldk_node_data.sqlite";
const MONITORS: &str = "monitors";
const UPDATES: &str = "monitor_updates";
/// What is enough of a monitor: the bytes before the number, and it.
const HEAD_BYTES: u64 = 12;
/// Stands where the channel is closed.
const CLOSED: u64 = u64::MAX;
/// So many channels have a mark each; of more the highest number alone is one.
const CHANNELS_MAX: usize = 1000;

const DANGER: &str = "a node that runs on old monitors publishes commitments that it has revoked, and its \
                      peers take all that is in those channels";

/// `ldk-node` and LDK Server.
pub(crate) struct LdkNode;

/// Any node that keeps LDK's store as files.
pub(crate) struct LdkFiles;

/// Channels and the numbers of their last updates.
type Updates = BTreeMap<String, u64>;

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

    fn wants(&self, at: &RelPath, path: &RelPath) -> Option<Wanted> {
        (*path == below(at, DATABASE)).then_some(Wanted::Whole)
    }

    fn marks(&self, content: &Content<'_>) -> Result<BTreeMap<String, u64>> {
        let database = open(content.file(DATABASE)?)?;
        let mut updates = Updates::new();
        let mut monitors = database
            .prepare("SELECT key, value FROM ldk_node_data WHERE primary_namespace = 'monitors'")
            .map_err(damaged)?;
        let mut rows = monitors.query([]).map_err(damaged)?;
        while let Some(row) = rows.next().map_err(damaged)? {
            let (key, value): (String, Vec<u8>) =
                (row.get(0).map_err(damaged)?, row.get(1).map_err(damaged)?);
            raise(&mut updates, key.clone(), number_of(&key, &value)?);
        }
        let mut later = database
            .prepare(
                "SELECT secondary_namespace, key FROM ldk_node_data \
                 WHERE primary_namespace = 'monitor_updates'",
            )
            .map_err(damaged)?;
        let mut rows = later.query([]).map_err(damaged)?;
        while let Some(row) = rows.next().map_err(damaged)? {
            let (channel, update): (String, String) =
                (row.get(0).map_err(damaged)?, row.get(1).map_err(damaged)?);
            raise(&mut updates, channel, update.parse().ok());
        }
        Ok(marks_of(updates))
    }
}

impl Profile for LdkFiles {
    fn name(&self) -> &'static str {
        "ldk-files"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        let both = |at: &RelPath| files.inside(at, MONITORS).any(|path| is_channel(path.name()));
        files.with("manager").into_iter().filter(both).collect()
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

    fn wants(&self, at: &RelPath, path: &RelPath) -> Option<Wanted> {
        let monitor = path.parent() == Some(below(at, MONITORS)) && is_channel(path.name());
        let update = || path.parent().and_then(|above| above.parent()) == Some(below(at, UPDATES));
        match monitor {
            true => Some(Wanted::Head(HEAD_BYTES)),
            false => update().then_some(Wanted::Head(0)),
        }
    }

    fn marks(&self, content: &Content<'_>) -> Result<BTreeMap<String, u64>> {
        let mut updates = Updates::new();
        for (name, value) in content.inside(MONITORS) {
            let channel = name.to_string_lossy().into_owned();
            raise(&mut updates, channel.clone(), number_of(&channel, value)?);
        }
        let channels: Vec<String> = updates.keys().cloned().collect();
        for channel in channels {
            for (update, _) in content.inside(&format!("{UPDATES}/{channel}")) {
                let number = update.to_str().and_then(|update| update.parse().ok());
                raise(&mut updates, channel.clone(), number);
            }
        }
        Ok(marks_of(updates))
    }
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

/// The number of a monitor's last update; `None` where its channel is closed.
fn number_of(channel: &str, monitor: &[u8]) -> Result<Option<u64>> {
    let rest = monitor.strip_prefix(&[0xFF, 0xFF]).unwrap_or(monitor);
    let number = rest.get(2..10).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    let number =
        number.ok_or_else(|| Error::corrupt("a monitor is cut").with_entry(channel.to_owned()))?;
    Ok(Some(number).filter(|number| *number != CLOSED))
}

fn raise(updates: &mut Updates, channel: String, number: Option<u64>) {
    if let Some(number) = number {
        let highest = updates.entry(channel).or_default();
        *highest = number.max(*highest);
    }
}

fn marks_of(updates: Updates) -> BTreeMap<String, u64> {
    if updates.len() <= CHANNELS_MAX {
        return updates
            .into_iter()
            .map(|(channel, number)| (format!("update/{channel}"), number))
            .collect();
    }
    let highest = updates.into_values().max().unwrap_or_default();
    BTreeMap::from([("update".to_owned(), highest)])
}
