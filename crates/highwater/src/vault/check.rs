//! Checks of a vault: manifests and sizes, or every byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::PoisonError;

use serde::Serialize;

use crate::control::{Control, Event};
use crate::error::{Error, Kind, Result};
use crate::ids::PackId;

use super::keys::SlotDoc;
use super::manifest::{EntryRecord, Manifest, PackRef};
use super::pack::{open_frame, pack_name, unit_range};
use super::read::leaf_packs;
use super::snapshots::foreign;
use super::store::Listed;
use super::{Selector, SnapshotName, Vault, header};

/// Frames are read together up to so many stored bytes.
const READ_BYTES: u64 = 4 << 20;
/// Packs of a local vault are read by so many threads.
const READERS: usize = 2;

/// What a check looks at.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// One snapshot; all of them where `None`.
    pub selector: Option<Selector>,
    /// Every byte is read, opened and compared, not only manifests and sizes.
    pub read_data: bool,
}

/// A fault that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The object or file.
    pub entry: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckReport {
    /// No fault was found.
    pub ok: bool,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Units opened and compared; 0 without `read_data`.
    pub chunks: u64,
    /// Stored bytes read, or whose presence was confirmed.
    pub bytes: u64,
    /// The faults.
    pub errors: Vec<Fault>,
}

/// Checks a vault. Faults are in the report; an error is what kept the check from being made.
pub fn check(vault: &Vault, options: &CheckOptions, control: &Control) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let objects = vault.store().list(None)?;
    let sizes: BTreeMap<&str, u64> =
        objects.iter().map(|listed| (listed.name.as_str(), listed.size)).collect();
    let manifests = match &options.selector {
        Some(selector) => vec![vault.resolve(selector)?.manifest],
        None => check_documents(vault, &objects, &mut report)?,
    };
    report.snapshots = manifests.len() as u64;
    let mut packs = BTreeMap::new();
    for manifest in &manifests {
        check_packs_present(manifest, &sizes, &mut packs, &mut report);
    }
    if options.read_data {
        if options.selector.is_none() {
            add_unreferenced_packs(&objects, &mut packs, &mut report);
        }
        check_packs(vault, &packs, control, &mut report)?;
        check_maps(vault, &manifests, control, &mut report)?;
    } else {
        report.bytes = packs.values().sum();
    }
    report.errors.sort_by(|a, b| (&a.entry, &a.problem).cmp(&(&b.entry, &b.problem)));
    report.errors.dedup();
    report.ok = report.errors.is_empty();
    Ok(report)
}

impl CheckReport {
    fn fault(&mut self, error: &Error) {
        let entry = error.entry_name().unwrap_or("the vault").to_owned();
        self.errors.push(Fault { entry, problem: error.message().to_owned() });
    }

    /// Takes what is wrong with an object as a fault, and passes on what kept us from looking.
    fn judge<T>(&mut self, looked: Result<T>) -> Result<Option<T>> {
        match looked {
            Ok(value) => Ok(Some(value)),
            // A version that nobody has written yet may be a flipped bit: it is named like one.
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound | Kind::Input) => {
                self.fault(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Opens every object but the packs, and returns the manifests.
fn check_documents(
    vault: &Vault,
    objects: &[Listed],
    report: &mut CheckReport,
) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for Listed { name, .. } in objects {
        let folder = name.split_once('/').map_or(name.as_str(), |(folder, _)| folder);
        let looked = match folder {
            header::NAME => check_header(vault),
            "keys" => check_slot(vault, name),
            "intents" => vault.open_intent(name).map(drop),
            "nodes" => vault.open_node_record(name).and_then(|record| {
                let newest = record.newest.filter(|_| is_newest(name, objects));
                let Some((snapshot, _)) = newest else { return Ok(()) };
                let names = vault.snapshot_names(Some(&record.node))?;
                if names.iter().any(|name| name.snapshot == snapshot) {
                    return Ok(());
                }
                Err(Error::corrupt("the newest snapshot of the node is missing")
                    .entry(format!("snapshots/{}/…-{snapshot}", record.node)))
            }),
            "witness" => vault.open_witness(name).map(drop),
            "snapshots" => match SnapshotName::parse(name) {
                Some(parsed) => {
                    report.judge(vault.manifest(&parsed)).map(|manifest| manifests.extend(manifest))
                }
                None => Err(foreign(name)),
            },
            // A later prune keeps its tombstones in `trash/`; nothing that is needed lies there.
            "packs" | "trash" => Ok(()),
            _ => Err(foreign(name)),
        };
        report.judge(looked)?;
    }
    if !objects.iter().any(|listed| listed.name == header::NAME) {
        report.fault(&Error::corrupt("it is missing").entry(header::NAME));
    }
    Ok(manifests)
}

fn check_header(vault: &Vault) -> Result<()> {
    let header = header::Header::parse(&vault.store().get(header::NAME)?)?;
    header.verify(vault.master())?;
    if header.vault != vault.id() {
        return Err(Error::corrupt("it is of another vault").entry(header::NAME));
    }
    Ok(())
}

fn check_slot(vault: &Vault, name: &str) -> Result<()> {
    let slot = SlotDoc::parse(name, &vault.store().get(name)?)?;
    if slot.vault() != vault.id() || slot.object_name() != name {
        return Err(foreign(name));
    }
    slot.verify(vault.master())
}

/// Whether a record is the last one of its node.
fn is_newest(name: &str, objects: &[Listed]) -> bool {
    let Some((folder, _)) = name.rsplit_once('/') else { return false };
    let siblings = objects
        .iter()
        .filter(|listed| listed.name.rsplit_once('/').is_some_and(|(other, _)| other == folder));
    siblings.map(|listed| listed.name.as_str()).max() == Some(name)
}

fn check_packs_present(
    manifest: &Manifest,
    sizes: &BTreeMap<&str, u64>,
    packs: &mut BTreeMap<PackId, u64>,
    report: &mut CheckReport,
) {
    for pack in &manifest.packs {
        let name = pack_name(pack.id);
        match sizes.get(name.as_str()) {
            Some(&size) if size == pack.size => {
                packs.insert(pack.id, size);
            }
            Some(&size) => {
                let problem = format!("the pack has {size} bytes and should have {}", pack.size);
                report.fault(&Error::corrupt(problem).entry(name));
            }
            None => report.fault(&Error::corrupt("the pack is missing").entry(name)),
        }
    }
}

/// Packs that no snapshot needs (of a backup that runs, or was killed) are read as well.
fn add_unreferenced_packs(
    objects: &[Listed],
    packs: &mut BTreeMap<PackId, u64>,
    report: &mut CheckReport,
) {
    let faulty: BTreeSet<String> = report.errors.iter().map(|fault| fault.entry.clone()).collect();
    for Listed { name, size, .. } in objects {
        let Some(rest) = name.strip_prefix("packs/") else { continue };
        if faulty.contains(name) {
            continue;
        }
        let id = rest.split_once('/').and_then(|(_, id)| id.parse::<PackId>().ok());
        match id.filter(|&id| pack_name(id) == *name) {
            Some(id) => {
                packs.insert(id, *size);
            }
            None => report.fault(&foreign(name)),
        }
    }
}

/// Reads every byte of the packs.
fn check_packs(
    vault: &Vault,
    packs: &BTreeMap<PackId, u64>,
    control: &Control,
    report: &mut CheckReport,
) -> Result<()> {
    control.report(Event::Stage { name: "check", bytes_total: packs.values().sum() });
    let queue = Mutex::new(packs.iter().map(|(&id, &size)| PackRef { id, size }));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..vault.store().readers(READERS))
            .map(|_| {
                scope.spawn(|| {
                    let mut looked = (0, 0);
                    while let Some(pack) = next() {
                        control.cancel.check()?;
                        match check_pack(vault, pack, control) {
                            Ok(units) => {
                                looked.0 += units;
                                looked.1 += pack.size;
                            }
                            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Input) => {
                                found.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    Ok(looked)
                })
            })
            .collect();
        for reader in readers {
            let joined = reader.join().unwrap_or_else(|_| Err(Error::bug("a reader panicked")));
            let (units, bytes) = joined?;
            report.chunks += units;
            report.bytes += bytes;
        }
        Ok(())
    })?;
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.iter().for_each(|error| report.fault(error));
    Ok(())
}

/// Opens every frame of a pack and compares every unit with its id; counts the units.
fn check_pack(vault: &Vault, pack: PackRef, control: &Control) -> Result<u64> {
    let open = vault.open_pack(pack)?;
    let index = &open.index;
    let mut frame = 0;
    let mut units = 0;
    let mut plain = Vec::new();
    while frame < index.frames() {
        control.cancel.check()?;
        let start = index.range(frame).start;
        let mut last = frame;
        while last + 1 < index.frames() && index.range(last + 1).end - start <= READ_BYTES {
            last += 1;
        }
        let end = index.range(last).end;
        let mut bytes: Vec<u8> = vault.store().get_range(&open.name, start..end)?.into();
        for number in frame..=last {
            let record = index.frame(number);
            let wrong = || {
                Error::corrupt(format!("frame {number} of the pack was changed")).entry(&open.name)
            };
            let range = index.range(number);
            let stored = bytes
                .get_mut((range.start - start) as usize..(range.end - start) as usize)
                .ok_or_else(wrong)?;
            open_frame(&open.key, number as u64, record, stored, &mut plain).ok_or_else(wrong)?;
            for (place, unit) in (index.first_unit(number)..).take(record.units.into()).enumerate()
            {
                let id = vault.unit_keys().id(record.kind, &plain[unit_range(record, place)]);
                if index.unit_id(unit) != Some(id) {
                    return Err(wrong());
                }
                units += 1;
            }
        }
        control.report(Event::Bytes(end - start));
        frame = last + 1;
    }
    Ok(units)
}

/// Loads the map of every file: each unit that a snapshot names is one that a pack holds.
fn check_maps(
    vault: &Vault,
    manifests: &[Manifest],
    control: &Control,
    report: &mut CheckReport,
) -> Result<()> {
    let mut seen = BTreeSet::new();
    for manifest in manifests {
        for entry in manifest.entries() {
            for number in 0..entry.leaves.len() {
                control.cancel.check()?;
                if !seen.insert(leaf_identity(manifest, entry, number)) {
                    continue;
                }
                report.judge(vault.load_leaf(manifest, entry, number).map(drop))?;
            }
        }
    }
    Ok(())
}

/// The same leaf in another snapshot needs no second look.
fn leaf_identity(manifest: &Manifest, entry: &EntryRecord, number: usize) -> (String, String, u64) {
    let leaf = &entry.leaves[number];
    let packs = leaf_packs(manifest, leaf).unwrap_or_default();
    let places = format!("{:?} {packs:?}", leaf.runs);
    (leaf.content.clone(), places, entry.size)
}
