//! Which keys are replicated, and how.

use std::time::Duration;

use memchr::memmem;

use super::book::Queued;

/// How a key's writes are replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The server first: a write returns once the server has it, and is seen here from then on.
    RemoteFirst,
    /// Here first: a write returns once it is durable here, and is sent as soon as can be.
    LocalFirst,
    /// Never sent, and no part of what the replica proves.
    LocalOnly,
}

/// Writes that are of use on the server only together with a later write of one key: they are put in the
/// put that has that one, too.
///
/// A node that persists a channel's update and goes on only once it is durable (`InProgress`, in LDK) writes
/// its manager in between, which says that the update is on its way. With both on the server a restored
/// node goes on where it was; with the update alone its manager is older than its channel, and LDK closes
/// that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The key whose next write carries them.
    pub by: Vec<u8>,
    /// Keys with this prefix are carried by any write of that key.
    pub after: Vec<u8>,
    /// Keys with this prefix are carried by a write of that key that contains their value.
    pub within: Vec<u8>,
    /// They are sent without that key after this time.
    pub wait: Duration,
}

/// Classes of keys by their prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    rules: Vec<(Vec<u8>, Class)>,
    otherwise: Class,
    pub(super) carried: Option<Carried>,
    pub(super) in_order: bool,
}

impl Classes {
    /// All keys of one class.
    pub fn all(class: Class) -> Classes {
        Classes { rules: Vec::new(), otherwise: class, carried: None, in_order: false }
    }

    /// Some writes are held back until another one can be sent with them.
    #[must_use]
    pub fn with_carried(mut self, carried: Carried) -> Classes {
        self.carried = Some(carried);
        self
    }

    /// The store remembers in which order its keys came to be. That is a look and, for a key that comes or goes, two
    /// small rows, in the transaction of each write. Keys of before, from starts without it, get a place at the next
    /// start with it, which then reads all values once: among themselves by their names, and as newer than those
    /// that have one. Of keys that came from a server, it is the order in which they were last written.
    #[must_use]
    pub fn in_order(mut self) -> Classes {
        self.in_order = true;
        self
    }

    /// Keys that begin with `prefix` are of this class. The longest prefix that fits counts.
    #[must_use]
    pub fn with(mut self, prefix: impl Into<Vec<u8>>, class: Class) -> Classes {
        self.rules.push((prefix.into(), class));
        self.rules.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self
    }

    /// The class of a key.
    pub fn of(&self, key: &[u8]) -> Class {
        let rule = self.rules.iter().find(|(prefix, _)| key.starts_with(prefix));
        rule.map_or(self.otherwise, |(_, class)| *class)
    }
}

impl Carried {
    /// The first of these writes that nothing behind it carries, where there is one: it waits, and all
    /// that follows it.
    pub(super) fn first_alone(&self, writes: &[Queued]) -> Option<usize> {
        let last = writes.iter().rposition(|write| write.key == self.by && write.value.is_some());
        let carrier = last.and_then(|place| writes[place].value.as_deref()).unwrap_or_default();
        let is_alone = |(place, write): (usize, &Queued)| {
            let Some(value) = &write.value else { return false };
            let behind = last.is_some_and(|last| last > place);
            if write.key.starts_with(&self.within) {
                return !behind || memmem::find(carrier, value).is_none();
            }
            write.key.starts_with(&self.after) && !behind
        };
        let alone = writes.iter().enumerate().position(is_alone)?;
        // No half of a transaction.
        Some(writes[..alone].iter().rposition(|write| !write.more).map_or(0, |last| last + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::Way;
    use super::*;
    use highwater::ids::Time;

    fn queued(key: &str, value: Option<&str>) -> Queued {
        let value = value.map(|value| value.as_bytes().to_vec());
        let (way, at) = (Way::LocalFirst, Time::default());
        Queued { seq: 0, way, at, key: key.as_bytes().to_vec(), value, more: false }
    }

    #[test]
    fn an_update_waits_for_the_manager_that_contains_it() {
        let carried = Carried {
            by: b"m".to_vec(),
            after: b"full/".to_vec(),
            within: b"update/".to_vec(),
            wait: Duration::ZERO,
        };
        let alone = |writes: &[(&str, Option<&str>)]| {
            let writes: Vec<Queued> =
                writes.iter().map(|(key, value)| queued(key, *value)).collect();
            carried.first_alone(&writes)
        };
        assert_eq!(alone(&[("x", Some("1")), ("m", Some("2"))]), None);
        assert_eq!(alone(&[("x", Some("1")), ("update/1", Some("u1"))]), Some(1));
        assert_eq!(alone(&[("update/1", Some("u1")), ("m", Some("..u1.."))]), None);
        // The one before it says nothing of it; nor does one that was made before it.
        assert_eq!(alone(&[("m", Some("..u1..")), ("update/1", Some("u1"))]), Some(1));
        assert_eq!(alone(&[("update/1", Some("u1")), ("m", Some("...."))]), Some(0));
        // Of several the last one counts: it alone is sent.
        let late = [("update/1", Some("u1")), ("m", Some("..")), ("m", Some("..u1"))];
        assert_eq!(alone(&late), None);
        assert_eq!(alone(&[("full/1", Some("f")), ("m", Some(".."))]), None);
        assert_eq!(alone(&[("x", None), ("full/1", Some("f"))]), Some(1));
        assert_eq!(alone(&[("update/1", None), ("full/1", None)]), None);
    }

    #[test]
    fn the_longest_prefix_counts() {
        let classes = Classes::all(Class::LocalFirst)
            .with("m", Class::LocalOnly)
            .with("monitors/", Class::RemoteFirst);
        assert_eq!(classes.of(b"monitors/1"), Class::RemoteFirst);
        assert_eq!(classes.of(b"monitor"), Class::LocalOnly);
        assert_eq!(classes.of(b"x"), Class::LocalFirst);
    }
}
