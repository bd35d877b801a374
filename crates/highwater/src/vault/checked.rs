//! When each pack of a vault was last read whole: what lets a check read a share each time, and
//! all of it in the end.
//!
//! One small file for each vault in the state directory of who checks, replaced in one step. It is
//! no more than a memory: without it a check begins again with what was never read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::ids::{PackId, Time, VaultId};

use super::Actor;
use super::actor::{make_private_dir, name, replace_private};

/// The first line of the file.
const HEAD: &str = "highwater packs read 2";
/// A file that is longer is not read: a vault of so many packs has petabytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A share of all bytes, above nothing and up to all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl FromStr for Share {
    type Err = Error;

    /// From a percentage, as `5%` or `0.5%`.
    fn from_str(text: &str) -> Result<Share> {
        let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
        match number.filter(|percent| *percent > 0.0 && *percent <= 100.0) {
            Some(percent) => Ok(Share(percent / 100.0)),
            None => {
                Err(Error::input(format!("`{text}` is no share")).with_remedy("write it as 5%"))
            }
        }
    }
}

impl Share {
    /// 10 %.
    pub const TENTH: Share = Share(0.1);

    /// Whether it is all.
    pub fn is_all(self) -> bool {
        self.0 >= 1.0
    }

    /// So many of `bytes`.
    pub(crate) fn of(self, bytes: u64) -> u64 {
        (bytes as f64 * self.0).ceil() as u64
    }
}

/// How much of a vault was read whole, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Packs that were looked at by their sizes.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that were read whole, and found good, by this check or an earlier one.
    pub packs_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// When the one of those was read that was read longest ago; `None` where there is none.
    pub since: Option<Time>,
}

/// What is remembered of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Read {
    /// Which check it was, counted: clocks are for show.
    check: u64,
    at: Time,
    good: bool,
}

/// When each pack was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    path: PathBuf,
    packs: BTreeMap<PackId, Read>,
    /// The number of this check.
    check: u64,
    /// Why the memory was begun anew, where it was.
    pub(crate) warning: Option<String>,
}

impl Checked {
    /// What this user remembers of a vault. A damaged memory is begun anew.
    pub(crate) fn load(actor: &Actor, vault: VaultId) -> Result<Checked> {
        let path = actor.state_dir.join("checked").join(vault.to_string());
        let failed =
            |error| Error::io("reading which packs were read", error).with_entry(name(&path));
        let size = match std::fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Checked { path, ..Checked::default() });
            }
            Err(error) => return Err(failed(error)),
        };
        let packs = match size {
            0..=FILE_BYTES_MAX => parse(&std::fs::read(&path).map_err(failed)?),
            _ => None,
        };
        let warning = packs
            .is_none()
            .then(|| format!("{} is damaged: every pack counts as never read", name(&path)));
        let packs = packs.unwrap_or_default();
        let last = packs.values().map(|read| read.check).max();
        let check = last.map_or(0, |last| last.saturating_add(1));
        Ok(Checked { packs, path, check, warning })
    }

    /// The packs that a share of all makes: those that were read longest ago, or never. One at
    /// least; and beside the share those that were found bad, so that no check calls them good.
    pub(crate) fn choose(&self, packs: &BTreeMap<PackId, u64>, share: Share) -> BTreeSet<PackId> {
        let bad = |id: &PackId| self.packs.get(id).is_some_and(|read| !read.good);
        let mut chosen: BTreeSet<PackId> = packs.keys().copied().filter(bad).collect();
        let mut order: Vec<(Option<u64>, PackId, u64)> = packs
            .iter()
            .filter(|(id, _)| !bad(id))
            .map(|(id, size)| (self.packs.get(id).map(|read| read.check), *id, *size))
            .collect();
        order.sort();
        let goal = share.of(packs.values().sum()).max(1);
        let mut bytes = 0;
        for (_, id, size) in order {
            if bytes >= goal {
                break;
            }
            chosen.insert(id);
            bytes += size;
        }
        chosen
    }

    /// Notes that a pack was read whole, and whether it was good.
    pub(crate) fn note(&mut self, pack: PackId, good: bool, at: Time) {
        self.packs.insert(pack, Read { check: self.check, at, good });
    }

    /// How much of these packs was read.
    pub(crate) fn coverage(&self, packs: &BTreeMap<PackId, u64>) -> Coverage {
        let mut coverage = Coverage { packs: packs.len() as u64, ..Coverage::default() };
        for (id, size) in packs {
            coverage.bytes += size;
            if let Some(read) = self.packs.get(id).filter(|read| read.good) {
                coverage.packs_read += 1;
                coverage.bytes_read += size;
                coverage.since = Some(coverage.since.map_or(read.at, |since| since.min(read.at)));
            }
        }
        coverage
    }

    /// Remembers what was noted, of packs that are in the vault.
    pub(crate) fn save(&mut self, actor: &Actor, known: &BTreeSet<PackId>) -> Result<()> {
        self.packs.retain(|id, _| known.contains(id));
        let mut text = format!("{HEAD}\n");
        for (id, read) in &self.packs {
            let word = if read.good { "good" } else { "bad" };
            text.push_str(&format!("{id} {} {} {word}\n", read.check, read.at.as_nanos()));
        }
        text.push_str(&format!("{}\n", blake3::hash(text.as_bytes()).to_hex()));
        let dir =
            self.path.parent().ok_or_else(|| Error::bug("a state file without a directory"))?;
        make_private_dir(dir)?;
        // Of two checks at once the one that ends last is remembered.
        let _lock = actor.lock_memory(&name_of(&self.path))?;
        replace_private(&self.path, "remembering which packs were read", text.as_bytes())
    }
}

fn name_of(path: &Path) -> String {
    let vault = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{vault}.checked")
}

/// The content of the file; `None` where a byte is not what was written.
fn parse(bytes: &[u8]) -> Option<BTreeMap<PackId, Read>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (body, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body = &text[..body.len() + 1];
    if blake3::hash(body.as_bytes()).to_hex().as_str() != sum {
        return None;
    }
    let mut lines = body.lines();
    if lines.next() != Some(HEAD) {
        return None;
    }
    let line = |line: &str| {
        let mut words = line.split(' ');
        let id = words.next()?.parse().ok()?;
        let check = words.next()?.parse().ok()?;
        let at = Time::from_nanos(words.next()?.parse().ok()?);
        let good = match words.next()? {
            "good" => true,
            "bad" => false,
            _ => return None,
        };
        words.next().is_none().then_some((id, Read { check, at, good }))
    };
    lines.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(number: u8) -> PackId {
        PackId::from_bytes([number; 16])
    }

    fn actor(dir: &std::path::Path) -> Actor {
        Actor { state_dir: dir.to_owned(), name: "tester".to_owned() }
    }

    #[test]
    fn shares_are_percentages_above_nothing() {
        assert_eq!("5%".parse::<Share>().unwrap().of(1000), 50);
        assert_eq!("0.1%".parse::<Share>().unwrap().of(10), 1);
        assert_eq!("100%".parse::<Share>().unwrap().of(7), 7);
        for wrong in ["5", "0%", "-1%", "101%", "%", "NaN%", "inf%", "1/7"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn twenty_runs_of_a_twentieth_read_everything_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let packs: BTreeMap<PackId, u64> =
            (0..50).map(|number| (pack(number), 1 + u64::from(number) * 37 % 100)).collect();
        let known: BTreeSet<PackId> = packs.keys().copied().collect();
        let (actor, vault) = (actor(dir.path()), VaultId::from_bytes([9; 16]));
        let share = "5%".parse().unwrap();
        let total: u64 = packs.values().sum();
        let mut read = BTreeSet::new();
        for run in 0..20 {
            let mut checked = Checked::load(&actor, vault).unwrap();
            let chosen = checked.choose(&packs, share);
            assert!(!chosen.is_empty());
            let never = packs.keys().all(|id| read.contains(id) || chosen.contains(id));
            assert!(chosen.is_disjoint(&read) || never, "run {run}");
            let bytes: u64 = chosen.iter().map(|id| packs[id]).sum();
            assert!(bytes >= share.of(total) && bytes < share.of(total) + 100, "run {run}");
            // The clock goes backwards.
            chosen.iter().for_each(|&id| checked.note(id, true, Time::from_nanos(-run)));
            read.extend(chosen);
            checked.save(&actor, &known).unwrap();
            let left = total
                - packs
                    .iter()
                    .filter(|(id, _)| read.contains(id))
                    .map(|(_, size)| size)
                    .sum::<u64>();
            assert_eq!(checked.coverage(&packs).bytes_read, total - left);
        }
        assert_eq!(read, known);
        let checked = Checked::load(&actor, vault).unwrap();
        assert!(checked.coverage(&packs).since.is_some());
        // The next run begins again with what was read first.
        let again = checked.choose(&packs, share);
        let first = checked.packs.values().map(|read| read.check).min().unwrap();
        assert!(again.iter().all(|id| checked.packs[id].check == first));
    }

    #[test]
    fn a_bad_pack_is_read_each_time_beside_the_share() {
        let packs: BTreeMap<PackId, u64> = (0..4).map(|number| (pack(number), 100)).collect();
        let mut checked = Checked::default();
        checked.note(pack(2), false, Time::from_nanos(5));
        let share = "25%".parse().unwrap();
        assert_eq!(checked.choose(&packs, share), [pack(0), pack(2)].into());
        checked.note(pack(0), true, Time::from_nanos(6));
        assert_eq!(checked.choose(&packs, share), [pack(1), pack(2)].into());
        assert_eq!(checked.coverage(&packs).packs_read, 1, "the bad one does not count");
    }

    #[test]
    fn a_damaged_memory_is_begun_anew_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (actor, vault) = (actor(dir.path()), VaultId::from_bytes([9; 16]));
        let mut checked = Checked::load(&actor, vault).unwrap();
        assert_eq!(checked.warning, None);
        checked.note(pack(1), true, Time::from_nanos(-5));
        checked.note(pack(2), false, Time::from_nanos(7));
        checked.note(pack(3), true, Time::from_nanos(8));
        checked.save(&actor, &[pack(1), pack(2)].into()).unwrap();
        let kept = Checked::load(&actor, vault).unwrap();
        assert_eq!(kept.packs.len(), 2, "what is not in the vault is forgotten");
        assert_eq!(kept.packs[&pack(1)], Read { check: 0, at: Time::from_nanos(-5), good: true });
        let bytes = std::fs::read(&checked.path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(parse(&damaged), None, "byte {at}");
            assert_eq!(parse(&bytes[..at]), None, "cut at {at}");
        }
        std::fs::write(&checked.path, b"nonsense").unwrap();
        let mut anew = Checked::load(&actor, vault).unwrap();
        assert!(anew.packs.is_empty() && anew.warning.is_some());
        anew.save(&actor, &BTreeSet::new()).unwrap();
        assert_eq!(Checked::load(&actor, vault).unwrap().warning, None);
    }
}
