//! All values from a server into an empty store.

use highwater::ids::Time;
use highwater::{Error, Remedy, Result};

use super::book::{Book, Fetched};
use super::digest::Sum;
use super::head::{HEADS, HeadState, Placed};
use super::keys::{Opened, ReplicaKeys, VALUES};
use super::remote::{Remote, each_value, list_all};

/// How many values are written at once.
const AT_ONCE: usize = 256;
/// How many bytes of values are written at once, if they are fewer values.
const AT_ONCE_BYTES: usize = 64 << 20;

/// What was hydrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hydrated {
    pub(super) values: u64,
    pub(super) bytes: u64,
    /// Of all that was taken.
    pub(super) sum: Sum,
}

/// Reads all values into the store, whose head is ours: nobody writes meanwhile but those who don't know
/// of heads, and the digest tells of them.
///
/// # Errors
/// Corrupt where a value is not what its owner sealed, or where together they are not what the head says:
/// then `accept_inconsistent` goes on all the same. Unavailable where the server can't be asked.
pub(super) fn hydrate(
    book: &Book,
    remote: &dyn Remote,
    keys: &ReplicaKeys,
    held: &Placed,
    accept_inconsistent: bool,
) -> Result<Hydrated> {
    book.begin_hydration()?;
    let names: Vec<String> = list_all(remote, VALUES)?.into_iter().map(|(name, _)| name).collect();
    let mut done = Hydrated::default();
    let (mut values, mut waiting) = (Vec::new(), 0);
    each_value(remote, &names, |name, found| {
        let Some((_, sealed)) = found else { return Ok(()) };
        let opened = match keys.open(name, &sealed) {
            Ok(opened) if opened.seq <= held.head.seq => opened,
            Ok(_) if accept_inconsistent => return Ok(()),
            Ok(_) => {
                return Err(Error::corrupt("a value on the server is newer than its head")
                    .with_entry(name)
                    .with_remedy("somebody writes who does not hold the head"));
            }
            Err(_) if accept_inconsistent => return Ok(()),
            Err(error) => return Err(error),
        };
        done.sum.add(opened.tag);
        done.values += 1;
        done.bytes += opened.value.len() as u64;
        waiting += opened.value.len();
        let Opened { key, value, seq, tag } = opened;
        values.push(Fetched { name: name.to_owned(), tag, seq, key, value });
        if values.len() >= AT_ONCE || waiting >= AT_ONCE_BYTES {
            waiting = 0;
            book.hydrate(std::mem::take(&mut values))?;
        }
        Ok(())
    })?;
    if !values.is_empty() {
        book.hydrate(values)?;
    }
    if done.sum != held.head.sum && !accept_inconsistent {
        return Err(inconsistent(&format!(
            "the head speaks of {} values, {} were there, and together they are not what it says",
            held.head.sum.count, done.sum.count
        )));
    }
    check_filled(held, accept_inconsistent)?;
    Ok(done)
}

/// A server that is being filled does not have one whole instant.
///
/// # Errors
/// Corrupt where it is, unless that is accepted.
pub(super) fn check_filled(held: &Placed, accept_inconsistent: bool) -> Result<()> {
    if held.head.state == HeadState::Filling && !accept_inconsistent {
        return Err(inconsistent(&format!("its owner has not filled it yet: {}", held.told())));
    }
    Ok(())
}

/// Learns what an older server holds, so that it can be written over: the tags of its values, and deletes
/// of those that are not here any more. Its true sum.
pub(super) fn learn(
    book: &Book,
    remote: &dyn Remote,
    keys: &ReplicaKeys,
    now: Time,
) -> Result<Sum> {
    let names: Vec<String> = list_all(remote, VALUES)?.into_iter().map(|(name, _)| name).collect();
    let mut sum = Sum::default();
    for names in names.chunks(AT_ONCE) {
        let mut values = Vec::with_capacity(names.len());
        each_value(remote, names, |name, found| {
            if let Some((_, sealed)) = found {
                let opened = keys.open(name, &sealed)?;
                sum.add(opened.tag);
                values.push((name.to_owned(), opened.tag, opened.key));
            }
            Ok(())
        })?;
        book.learn(values, now)?;
    }
    book.end_learning()?;
    Ok(sum)
}

fn inconsistent(why: &str) -> Error {
    Error::corrupt(format!("what is on the server is no one instant of its owner's store: {why}"))
        .with_remedy("look for a backup")
        .with_remedy(Remedy::AcceptInconsistent)
}

/// The one head on a server, if there is one.
///
/// # Errors
/// Corrupt where there are several; denied where these keys don't open it.
pub(super) fn find_head(remote: &dyn Remote, keys: &ReplicaKeys) -> Result<Option<Placed>> {
    // The head may be replaced between the list and the look.
    for _ in 0..3 {
        let heads = list_all(remote, HEADS)?;
        match heads.as_slice() {
            [] => return Ok(None),
            [(name, _)] => {
                if let Some((version, sealed)) = remote.get(name)? {
                    return Placed::open(keys, name, version, &sealed).map(Some);
                }
            }
            several => {
                return Err(Error::corrupt(format!(
                    "there are {} heads on the server",
                    several.len()
                ))
                .with_remedy("somebody writes who does not keep the rules"));
            }
        }
    }
    Err(Error::unavailable("the head on the server changes all the time"))
}
