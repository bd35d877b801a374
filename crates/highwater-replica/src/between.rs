//! Channels of a Lightning Development Kit node whose monitors are further than its manager.
//!
//! With synchronous persistence a monitor is on the server before the manager that knows of it. Where
//! the owner died between the two, the manager that is read next closes the channel.

use std::collections::BTreeSet;

use highwater::Result;

use super::keys::ReplicaKeys;
use super::local::{LocalStore, Space};
use super::remote::{Remote, each_value};

/// Keys of LDK are `primary/secondary/key`; the manager has neither namespace.
const MANAGER: &[u8] = b"//manager";
const MONITORS: &[u8] = b"monitors/";
const UPDATES: &[u8] = b"monitor_updates/";
/// Rows of one look, and values that are asked for at once.
const ROWS: usize = 256;

/// The channels that loading what was just hydrated would close, by the names that LDK gives their
/// monitors: their newest write came after the manager's. Without a manager, these are all channels.
///
/// A write alone does not close a channel: a monitor that was only written again, as after a block, is
/// named as well. Call this before the owner writes, while store and server are the same.
///
/// # Errors
/// Corrupt where the server gives something else than was sealed; unavailable where it can't be asked.
pub fn ahead_of_manager(
    local: &dyn LocalStore,
    remote: &dyn Remote,
    keys: &ReplicaKeys,
) -> Result<Vec<String>> {
    let manager = match local.get(Space::Data, MANAGER)? {
        Some(_) => seq_of(remote, keys, &[MANAGER.to_vec()])?.pop().flatten(),
        None => None,
    };
    let manager = manager.unwrap_or(0);
    let mut channels = BTreeSet::new();
    for prefix in [MONITORS, UPDATES] {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = local.scan(Space::Data, prefix, after.as_deref(), ROWS)?;
            let names: Vec<Vec<u8>> = rows.into_iter().map(|(key, _)| key).collect();
            let Some(last) = names.last() else { break };
            after = Some(last.clone());
            for (name, seq) in names.iter().zip(seq_of(remote, keys, &names)?) {
                if seq.is_some_and(|seq| seq > manager) {
                    channels.insert(channel_of(name, prefix));
                }
            }
        }
    }
    Ok(channels.into_iter().collect())
}

/// The channel of `monitors//CHANNEL` or of `monitor_updates/CHANNEL/NUMBER`.
fn channel_of(key: &[u8], prefix: &[u8]) -> String {
    let mut rest = key[prefix.len()..].split(|&byte| byte == b'/');
    let channel = rest.find(|name| !name.is_empty()).unwrap_or_default();
    highwater::ids::encode(channel)
}

/// The numbers of the writes that the server has of keys.
fn seq_of(remote: &dyn Remote, keys: &ReplicaKeys, names: &[Vec<u8>]) -> Result<Vec<Option<u64>>> {
    let names: Vec<String> = names.iter().map(|key| keys.name_of(key)).collect();
    let mut numbers = Vec::with_capacity(names.len());
    each_value(remote, &names, |name, found| {
        let opened = found.map(|(_, sealed)| keys.open(name, &sealed)).transpose()?;
        numbers.push(opened.map(|opened| opened.seq));
        Ok(())
    })?;
    Ok(numbers)
}
