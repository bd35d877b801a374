//! A transaction that no put takes: it travels in parts, counts by one head, and is applied then.
//!
//! Parts lie beside the values under names of their own. As long as the head does not call them valid, they
//! are nothing, and whoever holds the head next deletes them. From the put on that does, they are the
//! server's values, and whoever holds the head applies them before anything else.

use std::collections::BTreeMap;

use highwater::{Error, Kind, Result};

use super::super::book::{Attempt, Change};
use super::super::digest::Tag;
use super::super::head::{Head, HeadState, Parts, Placed};
use super::super::remote::{Item, RemotePut};
use super::{Sender, Step};

/// Parts that one put deletes.
const DISCARDED_MAX: u64 = 500;

/// A transaction that is being sent in parts.
pub(super) struct Staging {
    id: [u8; 16],
    /// The last write that is in a part.
    after: u64,
    parts: u64,
    /// What the server will hold of each name.
    changes: BTreeMap<String, Option<Tag>>,
}

impl Sender {
    /// The first transaction that waits fits into no put.
    pub(super) fn begin_staging(&mut self) -> Result<()> {
        let (id, after) = (self.env.random()?, self.held.head.seq);
        self.staging = Some(Staging { id, after, parts: 0, changes: BTreeMap::new() });
        Ok(())
    }

    /// Finishes what an earlier owner has begun; its own writes wait.
    ///
    /// # Errors
    /// As [`Sender::step`]; unavailable where the server can't be asked.
    pub(in super::super) fn finish_parts(&mut self) -> Result<()> {
        while self.prepare_parts()? {
            if let Step::Uncertain(error) = self.go_on()? {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes the next put that parts ask for; false where none do.
    pub(super) fn prepare_parts(&mut self) -> Result<bool> {
        match (self.held.head.parts, &self.staging) {
            (Some(parts), _) if parts.valid => self.apply_part(parts)?,
            (Some(parts), staging) if staging.as_ref().is_none_or(|it| it.id != parts.id) => {
                self.discard_parts(parts)?;
            }
            (_, Some(_)) => self.stage_part()?,
            (None, None) | (Some(_), None) => return Ok(false),
        }
        Ok(true)
    }

    /// Sends the next part; the last one makes all of them valid.
    fn stage_part(&mut self) -> Result<()> {
        let Some(mut staging) = self.staging.take() else { return Ok(()) };
        let mut writes = self.fitting(staging.after)?;
        let whole = writes.iter().position(|write| !write.more);
        writes.truncate(whole.map_or(writes.len(), |last| last + 1));
        let Some(last) = writes.last().map(|write| write.seq) else {
            return Err(Error::corrupt("a transaction in the queue has no end"));
        };
        let mut part = Vec::new();
        for write in &writes {
            let name = self.keys.name_of(&write.key);
            let sealed = match &write.value {
                Some(value) => {
                    self.seals += 1;
                    Some(self.keys.seal(&self.epoch, &name, &write.key, write.seq, value)?)
                }
                None => None,
            };
            let tag = sealed.as_ref().map(|(_, tag)| *tag);
            write_item(&mut part, &name, sealed.map(|(sealed, _)| sealed).as_deref());
            staging.changes.insert(name, tag);
        }
        (staging.after, staging.parts) = (last, staging.parts + 1);
        let valid = whole.is_some();
        let parts = Parts { id: staging.id, from: 0, to: staging.parts, valid };
        let name = parts.name(staging.parts - 1);
        let item = Item { version: -1, value: self.keys.seal_document(&name, &part)?, key: name };
        let mut head = self.next_head(self.held.head.state)?;
        head.parts = Some(parts);
        let mut changes = Vec::new();
        if valid {
            head.seq = last;
            head.state = self.state_at(last)?;
            for (name, tag) in staging.changes {
                self.book.tag(&name)?.iter().for_each(|old| head.sum.subtract(*old));
                tag.iter().for_each(|tag| head.sum.add(*tag));
                changes.push(Change::new(name, tag));
            }
        } else {
            self.staging = Some(staging);
        }
        self.send_parts(head, vec![item], Vec::new(), changes)
    }

    /// Makes the first part that is left the values that it is of.
    fn apply_part(&mut self, parts: Parts) -> Result<()> {
        let name = parts.name(parts.from);
        let lost =
            || Error::corrupt("the server has lost a part of a transaction").with_entry(&name);
        let (_, sealed) = self.remote.get(&name)?.ok_or_else(lost)?;
        let part = self.keys.open_document(&name, &sealed).map_err(|error| match error.kind() {
            Kind::Denied => {
                Error::corrupt("a part of a transaction is not what was sealed").with_entry(&name)
            }
            _ => error,
        })?;
        let (mut items, mut deletes) = (Vec::new(), Vec::new());
        let mut rest = part.as_slice();
        while !rest.is_empty() {
            let (key, value) = read_item(&mut rest).ok_or_else(lost)?;
            if value.is_none() {
                deletes.push((key.clone(), -1));
            }
            // One that is deleted is written before: a delete of what is missing is refused.
            let value = value.unwrap_or_default();
            items.push(Item { key, version: -1, value });
        }
        deletes.push((name, -1));
        let mut head = self.next_head(self.held.head.state)?;
        head.parts = left(parts, parts.from + 1);
        self.send_parts(head, items, deletes, Vec::new())
    }

    /// Deletes parts that never counted.
    fn discard_parts(&mut self, parts: Parts) -> Result<()> {
        let to = parts.to.min(parts.from + DISCARDED_MAX);
        let deletes = (parts.from..to).map(|number| (parts.name(number), -1)).collect();
        let mut head = self.next_head(self.held.head.state)?;
        head.parts = left(parts, to);
        self.send_parts(head, Vec::new(), deletes, Vec::new())
    }

    fn send_parts(
        &mut self,
        head: Head,
        mut items: Vec<Item>,
        deletes: Vec<(String, i64)>,
        changes: Vec<Change>,
    ) -> Result<()> {
        let placed = Placed { name: self.held.name.clone(), head };
        items.insert(0, self.head_item(&placed, self.held.head.version)?);
        self.send(Attempt { placed, from: None, changes }, RemotePut { items, deletes })
    }

    /// What the values are with all writes up to this one.
    pub(super) fn state_at(&self, seq: u64) -> Result<HeadState> {
        Ok(match self.book.filling()? {
            Some(to) if to > seq => HeadState::Filling,
            _ => HeadState::Open,
        })
    }
}

fn left(parts: Parts, from: u64) -> Option<Parts> {
    (from < parts.to).then_some(Parts { from, ..parts })
}

/// A name, and what is sealed under it or nothing: lengths before both, as 4 bytes; the second one has its
/// highest bit set where there is nothing.
fn write_item(part: &mut Vec<u8>, name: &str, sealed: Option<&[u8]>) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(NOTHING - 1);
    part.extend_from_slice(&length(name.as_bytes()).to_le_bytes());
    part.extend_from_slice(name.as_bytes());
    part.extend_from_slice(&sealed.map_or(NOTHING, length).to_le_bytes());
    part.extend_from_slice(sealed.unwrap_or_default());
}

const NOTHING: u32 = 1 << 31;

fn read_item(rest: &mut &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let (name, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (length, tail) = tail.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    let name = String::from_utf8(name.to_vec()).ok()?;
    if length == NOTHING {
        *rest = tail;
        return Some((name, None));
    }
    let (sealed, tail) = tail.split_at_checked(length as usize)?;
    *rest = tail;
    Some((name, Some(sealed.to_vec())))
}
