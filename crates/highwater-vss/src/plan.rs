//! From a put to its effects: pure. A put names keys in order, perhaps several times; what it does to
//! each key is known without the database but for what the key must be before.

use std::collections::BTreeMap;

use bytes::Bytes;
use vss_api::kv_store::{GLOBAL_VERSION_KEY, INITIAL_RECORD_VERSION};
use vss_api::types::{KeyValue, PutObjectRequest};

use crate::limits::{ITEMS_MAX, KEY_MAX};

/// Keys under this prefix are heads: whoever writes a fenced store holds the one that is there.
pub(crate) const HEAD_PREFIX: &str = "head.";

/// A put, looked over: each key once, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What happens to each key.
    pub effects: Vec<Effect>,
    /// What it says of heads.
    pub heads: Heads,
}

/// What happens to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The key.
    pub key: String,
    /// What must be there before; else the whole put is a conflict.
    pub expect: Expect,
    /// What is there afterwards.
    pub then: Then,
    /// Where the key stands in the put: among keys that are created, a later one is newer.
    pub order: u32,
}

impl Effect {
    fn value_bytes(&self) -> usize {
        match &self.then {
            Then::Put { value, .. } => value.len(),
            Then::Delete => 0,
        }
    }
}

/// What must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever it is.
    Any,
    /// Nothing.
    Absent,
    /// Something.
    Present,
    /// Something of this version, above 0.
    Version(i64),
}

/// What is there afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// A value of this version, above 0, with the [`tag`] of all three. A key that was there before keeps
    /// its place in listings.
    Put {
        /// The version.
        version: i64,
        /// The value.
        value: Bytes,
        /// What a digest adds up.
        tag: [u8; 32],
    },
    /// Nothing.
    Delete,
}

/// What a put says of heads, for a store that is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// It can land in a fenced store where exactly `before` heads are there, each of which it is
    /// conditional on: it leaves one.
    Fenced {
        /// How many heads it is conditional on: 0 or 1.
        before: u32,
    },
    /// It names no head, more than one that would stay, or one without a condition.
    Unfenced,
}

/// Why a put has no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutFault {
    /// The request breaks a rule.
    Invalid(String),
    /// It contradicts itself, whatever is in the store.
    Conflict(String),
}

impl Plan {
    /// Looks a put over: items in order, then the global version, then deletes.
    ///
    /// # Errors
    /// Invalid where a name or a count is beyond the limits; a conflict where the put can't succeed
    /// whatever is there.
    pub fn of(request: PutObjectRequest) -> Result<Plan, PutFault> {
        let count = request.transaction_items.len() + request.delete_items.len();
        if count > ITEMS_MAX {
            return Err(PutFault::Invalid(format!("{count} items; a put takes {ITEMS_MAX}")));
        }
        let mut keys: BTreeMap<String, Fold> = BTreeMap::new();
        let mut order = 0..;
        let mut fold = |key: String, step: Step| -> Result<(), PutFault> {
            check_key(&key).map_err(PutFault::Invalid)?;
            let next = order.next().unwrap_or(u32::MAX);
            match keys.get_mut(&key) {
                Some(found) => found.then(step, next),
                None => keys.insert(key, Fold::first(step, next)?).map_or(Ok(()), |_| Ok(())),
            }
        };
        for item in request.transaction_items {
            let KeyValue { key, version, value } = item;
            fold(key, Step::Put { version, value })?;
        }
        if let Some(version) = request.global_version {
            fold(GLOBAL_VERSION_KEY.to_owned(), Step::Put { version, value: Bytes::new() })?;
        }
        for item in request.delete_items {
            fold(item.key, Step::Delete { version: item.version })?;
        }
        let effects: Vec<Effect> = keys.into_iter().map(|(key, fold)| fold.effect(key)).collect();
        let heads = heads(&effects);
        Ok(Plan { effects, heads })
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.effects.iter().map(|effect| effect.key.len() + effect.value_bytes()).sum()
    }

    /// Bytes of the largest value.
    pub fn largest(&self) -> usize {
        self.effects.iter().map(Effect::value_bytes).max().unwrap_or(0)
    }
}

/// A key that no backend would refuse.
pub(crate) fn check_key(key: &str) -> Result<(), String> {
    check_name("a key", key, KEY_MAX)
}

/// A name of at most `max` characters, without NUL.
pub(crate) fn check_name(what: &str, name: &str, max: usize) -> Result<(), String> {
    // Bytes are counted only where characters might be too many.
    if name.len() > max && name.chars().count() > max {
        return Err(format!("{what} has more than {max} characters"));
    }
    if name.contains('\0') {
        return Err(format!("{what} holds a NUL"));
    }
    Ok(())
}

/// What a digest adds up for one key: BLAKE3 in its key derivation mode under the context below, over the
/// key's length as 4 bytes little-endian, the key, the version as 8 bytes little-endian, the value.
pub fn tag(key: &str, version: i64, value: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("highwater vss digest v1");
    hasher.update(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    hasher.update(key.as_bytes()).update(&version.to_le_bytes()).update(value);
    hasher.finalize().into()
}

/// One item of a put.
enum Step {
    Put { version: i64, value: Bytes },
    Delete { version: i64 },
}

/// What the items so far do to one key.
struct Fold {
    expect: Expect,
    /// None: deleted.
    now: Option<(i64, Bytes)>,
    order: u32,
}

impl Fold {
    fn first(step: Step, order: u32) -> Result<Fold, PutFault> {
        let (expect, now) = match step {
            Step::Put { version: -1, value } => (Expect::Any, Some((initial(), value))),
            Step::Put { version: 0, value } => (Expect::Absent, Some((initial(), value))),
            Step::Put { version, value } if version > 0 => {
                (Expect::Version(version), Some((next(version)?, value)))
            }
            Step::Delete { version: -1 } => (Expect::Present, None),
            Step::Delete { version } if version > 0 => (Expect::Version(version), None),
            Step::Put { .. } | Step::Delete { .. } => return Err(never()),
        };
        Ok(Fold { expect, now, order })
    }

    fn then(&mut self, step: Step, order: u32) -> Result<(), PutFault> {
        let current = self.now.as_ref().map(|(version, _)| *version);
        self.now = match (step, current) {
            (Step::Put { version: -1, value }, _) | (Step::Put { version: 0, value }, None) => {
                Some((initial(), value))
            }
            (Step::Put { version, value }, Some(current)) if version == current => {
                Some((next(version)?, value))
            }
            (Step::Delete { version: -1 }, Some(_)) => None,
            (Step::Delete { version }, Some(current)) if version == current => None,
            _ => return Err(never()),
        };
        // A key that an item creates has the place of that item, not of a later one that changes it.
        if current.is_none() {
            self.order = order;
        }
        Ok(())
    }

    fn effect(self, key: String) -> Effect {
        let then = match self.now {
            None => Then::Delete,
            Some((version, value)) => {
                let tag = tag(&key, version, &value);
                Then::Put { version, value, tag }
            }
        };
        Effect { key, expect: self.expect, then, order: self.order }
    }
}

fn initial() -> i64 {
    i64::from(INITIAL_RECORD_VERSION)
}

fn next(version: i64) -> Result<i64, PutFault> {
    version.checked_add(1).ok_or_else(never)
}

fn never() -> PutFault {
    PutFault::Conflict("a version does not fit what is there".to_owned())
}

/// What a put says of heads: it must be conditional on each that it names, and leave one of them.
fn heads(effects: &[Effect]) -> Heads {
    let (mut before, mut after) = (0, 0);
    for effect in effects.iter().filter(|effect| effect.key.starts_with(HEAD_PREFIX)) {
        match effect.expect {
            Expect::Version(_) => before += 1,
            Expect::Absent => {}
            Expect::Any | Expect::Present => return Heads::Unfenced,
        }
        after += u32::from(matches!(effect.then, Then::Put { .. }));
    }
    match (before, after) {
        (0 | 1, 1) => Heads::Fenced { before },
        _ => Heads::Unfenced,
    }
}

#[cfg(test)]
mod tests;
