//! Stores as the protocol's text has them, in memory, written without a look at how the server does it:
//! items one after the other on a copy, and a whole copy kept for each commit.

use std::collections::BTreeMap;

use api::types::{KeyValue, PutObjectRequest};
use highwater_vss::{Change, Keep, tag};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) version: i64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) place: u64,
}

type Items = BTreeMap<String, Value>;

/// A value that was replaced: of which key, by which commit, when.
#[derive(Clone, Debug)]
struct Replaced {
    key: String,
    until: u64,
    at: i64,
}

/// Commit, time, puts, deletes, which one it has brought back.
pub(crate) type Made = (u64, i64, u64, u64, Option<u64>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) items: Items,
    places: u64,
    pub(crate) fence: bool,
    pub(crate) history: Option<Keep>,
    pub(crate) generation: u64,
    pub(crate) commit: u64,
    pub(crate) oldest: u64,
    copies: BTreeMap<u64, Items>,
    replaced: Vec<Replaced>,
    pub(crate) commits: Vec<Made>,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    Conflict,
    Invalid,
}

impl Model {
    pub(crate) fn put(&mut self, request: &PutObjectRequest, now: i64) -> End {
        let mut after = self.items.clone();
        let mut places = self.places;
        let global = request.global_version.map(|version| KeyValue {
            key: "global_version".to_owned(),
            version,
            value: bytes::Bytes::new(),
        });
        for item in request.transaction_items.iter().chain(&global) {
            let there = after.get(&item.key);
            let version = match (item.version, there) {
                (-1, _) | (0, None) => 1,
                (wanted, Some(there)) if wanted > 0 && wanted == there.version => wanted + 1,
                _ => return End::Conflict,
            };
            let place = there.map_or_else(
                || {
                    places += 1;
                    places
                },
                |there| there.place,
            );
            let value = Value { version, bytes: item.value.to_vec(), place };
            after.insert(item.key.clone(), value);
        }
        for item in &request.delete_items {
            let fits = after
                .get(&item.key)
                .is_some_and(|there| item.version == -1 || item.version == there.version);
            if !fits {
                return End::Conflict;
            }
            after.remove(&item.key);
        }
        if self.fence
            && let Some(end) = self.fenced(request, &after)
        {
            return end;
        }
        let named: Vec<String> = request
            .transaction_items
            .iter()
            .chain(&global)
            .chain(&request.delete_items)
            .map(|item| item.key.clone())
            .collect();
        self.places = places;
        self.become_(after, &named, now, None);
        End::Ok
    }

    /// Why a put that would otherwise land does not in a fenced store.
    fn fenced(&self, request: &PutObjectRequest, after: &Items) -> Option<End> {
        let is_head = |key: &&String| key.starts_with("head.");
        let before: Vec<&String> = self.items.keys().filter(is_head).collect();
        let named: Vec<&KeyValue> = request
            .transaction_items
            .iter()
            .chain(&request.delete_items)
            .filter(|item| item.key.starts_with("head."))
            .collect();
        // The first item of a key is what it is conditional on.
        let conditional = named.iter().all(|item| {
            let first = named.iter().find(|first| first.key == item.key).unwrap();
            first.version >= 0
        });
        let left = named
            .iter()
            .filter(|item| after.contains_key(&item.key))
            .map(|item| &item.key)
            .collect::<std::collections::BTreeSet<_>>();
        let held = named
            .iter()
            .filter(|item| self.items.contains_key(&item.key))
            .map(|item| &item.key)
            .collect::<std::collections::BTreeSet<_>>();
        if !conditional || left.len() != 1 || held.len() > 1 {
            return Some(End::Invalid);
        }
        (before.len() != held.len()).then_some(End::Conflict)
    }

    pub(crate) fn delete(&mut self, key: &str, version: i64, now: i64) -> End {
        if self.fence {
            return End::Invalid;
        }
        let fits =
            self.items.get(key).is_some_and(|there| version == -1 || version == there.version);
        if fits {
            let mut after = self.items.clone();
            after.remove(key);
            self.become_(after, &[key.to_owned()], now, None);
        }
        End::Ok
    }

    /// Takes over what is there now; `named`: what was written, changed or not.
    fn become_(&mut self, after: Items, named: &[String], now: i64, restored: Option<u64>) {
        let before = std::mem::replace(&mut self.items, after);
        if self.history.is_none() {
            return;
        }
        self.commit += 1;
        let (mut puts, mut deletes) = (0, 0);
        let named: std::collections::BTreeSet<&String> = named.iter().collect();
        for key in named {
            if before.contains_key(key) {
                let key = key.clone();
                self.replaced.push(Replaced { key, until: self.commit, at: now });
            }
            puts += u64::from(self.items.contains_key(key));
            deletes += u64::from(before.contains_key(key) && !self.items.contains_key(key));
        }
        self.copies.insert(self.commit, self.items.clone());
        self.commits.push((self.commit, now, puts, deletes, restored));
    }

    pub(crate) fn change(&mut self, change: Change, now: i64) {
        self.fence = change.fence.unwrap_or(self.fence);
        let history = change.history.unwrap_or(self.history);
        if history.is_some() != self.history.is_some() {
            self.copies.clear();
            self.replaced.clear();
            self.commits.clear();
            if history.is_some() {
                self.commit += 1;
                self.copies.insert(self.commit, self.items.clone());
                self.commits.push((self.commit, now, 0, 0, None));
            }
            self.oldest = self.commit;
        }
        self.history = history;
    }

    /// Puts and deletes of a restore.
    pub(crate) fn restore(&mut self, to: u64, now: i64) -> Option<(u64, u64)> {
        if self.history.is_none() || to < self.oldest || to > self.commit {
            return None;
        }
        self.generation += 1;
        let then = self.copies[&to].clone();
        let mut after = Items::new();
        for (key, value) in &then {
            let there = self.items.get(key);
            let floor = i64::try_from((self.generation << 32) + 1).unwrap();
            let version = there.map_or(floor, |there| floor.max(there.version + 1));
            let place = there.map_or_else(
                || {
                    self.places += 1;
                    self.places
                },
                |there| there.place,
            );
            after.insert(key.clone(), Value { version, bytes: value.bytes.clone(), place });
        }
        let named: Vec<String> = then.keys().chain(self.items.keys()).cloned().collect();
        self.become_(after, &named, now, Some(to));
        let (_, _, puts, deletes, _) = *self.commits.last().unwrap();
        Some((puts, deletes))
    }

    /// Old values that go.
    pub(crate) fn prune(&mut self, now: i64) -> u64 {
        let Some(keep) = self.history else { return 0 };
        let days = i64::from(keep.days) * 24 * 60 * 60 * 1_000_000_000;
        let goes = |old: &Replaced| {
            let newer = self
                .replaced
                .iter()
                .filter(|other| other.key == old.key && other.until > old.until)
                .count();
            newer >= usize::try_from(keep.versions).unwrap() && old.at < now - days
        };
        let (gone, left): (Vec<Replaced>, Vec<Replaced>) =
            self.replaced.clone().into_iter().partition(goes);
        self.replaced = left;
        self.oldest = gone.iter().map(|old| old.until).chain([self.oldest]).max().unwrap();
        self.copies.retain(|commit, _| *commit >= self.oldest);
        self.commits.retain(|made| made.0 >= self.oldest);
        gone.len() as u64
    }

    /// Keys with a prefix, newest first, with their versions.
    pub(crate) fn list(&self, prefix: &str) -> Vec<(String, i64)> {
        let mut found: Vec<(&String, &Value)> = self
            .items
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && *key != "global_version")
            .collect();
        found.sort_by_key(|(_, value)| std::cmp::Reverse(value.place));
        found.into_iter().map(|(key, value)| (key.clone(), value.version)).collect()
    }

    pub(crate) fn global_version(&self) -> i64 {
        self.items.get("global_version").map_or(0, |value| value.version)
    }

    pub(crate) fn old_values(&self) -> u64 {
        self.replaced.len() as u64
    }

    /// The sum of all tags, byte by byte.
    pub(crate) fn sum(&self) -> [u8; 32] {
        let mut sum = [0_u8; 32];
        for (key, value) in &self.items {
            let mut carry = 0_u16;
            for (mine, other) in sum.iter_mut().zip(tag(key, value.version, &value.bytes)) {
                carry += u16::from(*mine) + u16::from(other);
                *mine = u8::try_from(carry & 0xff).unwrap();
                carry >>= 8;
            }
        }
        sum
    }
}
