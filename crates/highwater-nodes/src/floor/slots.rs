//! Slots and epochs: the rule of EIP-3076, and Lighthouse's database by it
//! (`validator_client/slashing_protection/src/slashing_database.rs`).
//!
//! Lighthouse refuses what conflicts with a row that it has, and what is not above its *lowest* rows. So a floor
//! beside the history that a copy remembers refuses nothing between the two, and that is where the original
//! has signed. As in Lighthouse's own import, the floor takes the place of the history, which it is above.

use std::collections::BTreeMap;

use highwater::guard::Basis;
use highwater::ids::RelPath;
use highwater::vault::channel_of;
use highwater::{Error, Result};
use rusqlite::Connection;

use super::database as sqlite;
use super::{Raised, Signer, Stated, needed, too_low};
use crate::profile::{Files, below};

/// Where Lighthouse keeps what its validators have signed.
pub(crate) const DATABASE: &str = "validators/slashing_protection.sqlite";
/// Some ten million rows; Lighthouse removes old ones.
const BYTES_MAX: u64 = 256 << 20;
/// SQLite's numbers are signed.
const NUMBER_MAX: u64 = i64::MAX as u64;
/// The signing root of a floor: Lighthouse takes it for none, so that nothing is the same as it.
const NO_ROOT: [u8; 32] = [0; 32];
/// Its tables.
const TABLES: [&str; 3] = ["validators", "signed_blocks", "signed_attestations"];

/// A signer by this rule.
pub(crate) struct Slots;

impl Signer for Slots {
    fn files(&self, at: &RelPath, _: &Files<'_>) -> Vec<RelPath> {
        vec![below(at, DATABASE)]
    }

    fn names(&self) -> &'static [&'static str] {
        &["slot", "epoch"]
    }

    fn bytes_max(&self) -> u64 {
        BYTES_MAX
    }

    fn logs(&self) -> &'static [&'static str] {
        &["-journal", "-wal"]
    }

    fn seen(&self, _: &RelPath, marks: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for (name, value) in marks {
            let what = channel_of(name).map(|(_, what)| what);
            if let Some(what) = what.filter(|what| ["slot", "source", "target"].contains(what)) {
                let highest = seen.entry(what.to_owned()).or_default();
                *highest = (*highest).max(*value);
            }
        }
        seen
    }

    fn raise_to_seen(&self, content: &[u8], seen: &BTreeMap<String, u64>) -> Result<Raised> {
        let database = sqlite::open_to_write(content)?;
        refuse_other_schema(&database)?;
        let has = total(&summary(&database)?);
        drop(database);
        let above = |name: &str| seen.get(name) > has.get(name);
        if !["slot", "source", "target"].into_iter().any(above) {
            return Ok(Raised { content: None, from: has.clone(), to: has });
        }
        let highest = |names: &[&str]| {
            let known = names.iter().flat_map(|name| [seen.get(*name), has.get(*name)]);
            known.flatten().copied().max().unwrap_or_default()
        };
        let epoch = highest(&["source", "target"]);
        let numbers = [("slot", highest(&["slot"]).max(epoch)), ("epoch", epoch)];
        let numbers = numbers.map(|(name, value)| (name.to_owned(), value)).into();
        self.raise(content, &Stated { numbers, basis: Basis::Seen }, seen)
    }

    fn raise(
        &self,
        content: &[u8],
        stated: &Stated,
        seen: &BTreeMap<String, u64>,
    ) -> Result<Raised> {
        let mut database = sqlite::open_to_write(content)?;
        refuse_other_schema(&database)?;
        let has = summary(&database)?;
        let floor = floor(stated, &has, seen)?;
        let from = total(&has);
        if is_at(&has, floor) {
            return Ok(Raised { content: None, to: from.clone(), from });
        }
        write(&database, floor).map_err(sqlite::damaged)?;
        let content = sqlite::image(&mut database)?;
        // Whatever its schema does: what is there is what was meant.
        let written = summary(&sqlite::open(&content)?)?;
        if written.len() != has.len() || !is_at(&written, floor) {
            return Err(Error::corrupt("the database does not keep what is written into it")
                .with_remedy("restore the node again"));
        }
        Ok(Raised { content: Some(content), from, to: total(&written) })
    }
}

/// What one validator has signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Signed {
    /// The lowest and the highest slot of a block.
    slots: Option<(u64, u64)>,
    /// The lowest and the highest source of an attestation.
    sources: Option<(u64, u64)>,
    /// The lowest and the highest target of an attestation.
    targets: Option<(u64, u64)>,
}

/// The digits of a public key, as Lighthouse writes it.
pub(crate) fn digits(key: &str) -> Option<String> {
    let digits = key.strip_prefix("0x")?;
    let whole = digits.len() == 96 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| digits.to_ascii_lowercase())
}

/// What each validator has signed, by its public key in hexadecimal digits.
fn summary(database: &Connection) -> Result<BTreeMap<String, Signed>> {
    let read = || -> rusqlite::Result<Vec<(i64, String)>> {
        let mut found = database.prepare("SELECT id, public_key FROM validators")?;
        found.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let validators = read().map_err(sqlite::damaged)?;
    let mut of_id = BTreeMap::new();
    for (id, key) in validators {
        let key = digits(&key).ok_or_else(|| Error::corrupt("a validator has no public key"))?;
        of_id.insert(id, (key, Signed::default()));
    }
    let groups = [
        ("slot", "signed_blocks"),
        ("source_epoch", "signed_attestations"),
        ("target_epoch", "signed_attestations"),
    ];
    for (column, table) in groups {
        for (id, lowest, highest) in extremes(database, column, table)? {
            let Some((_, signed)) = of_id.get_mut(&id) else { continue };
            let both = Some((lowest, highest));
            match column {
                "slot" => signed.slots = both,
                "source_epoch" => signed.sources = both,
                _ => signed.targets = both,
            }
        }
    }
    let count = of_id.len();
    let found: BTreeMap<String, Signed> = of_id.into_values().collect();
    if found.len() != count {
        return Err(Error::corrupt("two validators have one public key"));
    }
    Ok(found)
}

/// The lowest and the highest number in a column, by validator.
fn extremes(database: &Connection, column: &str, table: &str) -> Result<Vec<(i64, u64, u64)>> {
    let sql = format!(
        "SELECT validator_id, MIN({column}), MAX({column}) FROM {table} \
         WHERE validator_id IS NOT NULL GROUP BY validator_id"
    );
    let read = || -> rusqlite::Result<Vec<(i64, i64, i64)>> {
        let mut found = database.prepare(&sql)?;
        found.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
    };
    let rows = read().map_err(sqlite::damaged)?.into_iter();
    let number = |value: i64| {
        u64::try_from(value).map_err(|_| Error::corrupt(format!("a {column} is below zero")))
    };
    rows.map(|(id, lowest, highest)| Ok((id, number(lowest)?, number(highest)?))).collect()
}

/// The highest of all validators, and how many they are.
fn total(signed: &BTreeMap<String, Signed>) -> BTreeMap<String, u64> {
    let mut total = BTreeMap::from([("validators".to_owned(), signed.len() as u64)]);
    for one in signed.values() {
        for (name, both) in [("slot", one.slots), ("source", one.sources), ("target", one.targets)]
        {
            if let Some((_, highest)) = both {
                let value = total.entry(name.to_owned()).or_default();
                *value = (*value).max(highest);
            }
        }
    }
    total
}

/// The floor that follows from what is stated: a slot and an epoch; `None` where nothing is to be refused.
fn floor(
    stated: &Stated,
    has: &BTreeMap<String, Signed>,
    seen: &BTreeMap<String, u64>,
) -> Result<Option<(u64, u64)>> {
    let number = |name: &str| stated.numbers.get(name).copied();
    let (slot, epoch) = match (stated.basis, number("slot"), number("epoch")) {
        (Basis::Accepted, ..) => {
            return Err(Error::input(
                "no chain waits for such a validator: the floor can't be accepted as it is",
            )
            .with_remedy("state the slot and the epoch as they are"));
        }
        (Basis::NewChain, None, None) => return Ok(None),
        (_, Some(slot), Some(epoch)) => (slot, epoch),
        _ => return Err(needed(&["slot", "epoch"], None)),
    };
    if epoch > slot || slot > NUMBER_MAX {
        return Err(Error::input(format!(
            "slot {slot} can't be in epoch {epoch}: an epoch has several slots"
        ))
        .with_remedy("check whether the two are swapped"));
    }
    if stated.basis == Basis::NewChain {
        return Ok(Some((slot, epoch)));
    }
    let total = total(has);
    for (name, kind, value) in
        [("slot", "slot", slot), ("epoch", "source", epoch), ("epoch", "target", epoch)]
    {
        let known = total.get(kind).max(seen.get(kind)).copied().unwrap_or_default();
        if value < known {
            return Err(too_low(name, value, known));
        }
    }
    Ok(Some((slot, epoch)))
}

/// Whether every validator has this floor, and nothing else.
fn is_at(has: &BTreeMap<String, Signed>, floor: Option<(u64, u64)>) -> bool {
    let wanted = match floor {
        Some((slot, epoch)) => Signed {
            slots: Some((slot, slot)),
            sources: Some((epoch, epoch)),
            targets: Some((epoch, epoch)),
        },
        None => Signed::default(),
    };
    has.values().all(|one| *one == wanted)
}

/// Puts the floor in the place of all that is there.
fn write(database: &Connection, floor: Option<(u64, u64)>) -> rusqlite::Result<()> {
    database.execute_batch("BEGIN; DELETE FROM signed_blocks; DELETE FROM signed_attestations;")?;
    if let Some((slot, epoch)) = floor {
        let number = |value: u64| {
            i64::try_from(value)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
        };
        let (slot, epoch) = (number(slot)?, number(epoch)?);
        database.execute(
            "INSERT INTO signed_blocks (validator_id, slot, signing_root) \
             SELECT id, ?1, ?2 FROM validators",
            (slot, NO_ROOT),
        )?;
        database.execute(
            "INSERT INTO signed_attestations (validator_id, source_epoch, target_epoch, signing_root) \
             SELECT id, ?1, ?1, ?2 FROM validators",
            (epoch, NO_ROOT),
        )?;
    }
    database.execute_batch("COMMIT")
}

/// What is called as one of the tables must be one: a view would be written somewhere else.
fn refuse_other_schema(database: &Connection) -> Result<()> {
    let count = |table: &&str| -> rusqlite::Result<i64> {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name = ?1 AND type = 'table' \
                   AND sql LIKE 'CREATE TABLE %'";
        database.query_row(sql, (table,), |row| row.get(0))
    };
    for table in &TABLES {
        if count(table).map_err(sqlite::damaged)? != 1 {
            return Err(Error::corrupt(format!("the database has no table {table}"))
                .with_remedy("restore the node again, or another snapshot"));
        }
    }
    Ok(())
}
