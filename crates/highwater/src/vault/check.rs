//! Checks of a vault: manifests and sizes, or every byte.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use parking_lot::Mutex;
use serde::Serialize;

use crate::control::{Control, Event};
use crate::direct::AlignedBuffer;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{NodeName, PackId, SnapshotId};

use super::checked::{Checked, Coverage, Share};
use super::folder::{Folder, HEADER};
use super::keys::SlotDoc;
use super::manifest::{EntryRecord, Manifest, PackRef};
use super::pack::{open_frame, pack_name, unit_range};
use super::read::leaf_packs;
use super::sealed::foreign;
use super::store::Listed;
use super::{Actor, Selector, SnapshotName, Vault, header};

/// Frames are read together up to so many stored bytes.
const READ_BYTES: u64 = 4 << 20;
/// Packs of a local vault are read by so many threads.
const READERS: usize = 2;

/// What a check looks at.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CheckOptions {
    /// One snapshot alone.
    pub selector: Option<Selector>,
    /// The snapshots of one node alone, where no snapshot is selected.
    pub node: Option<NodeName>,
    /// Every byte is read, opened and compared, not only manifests and sizes.
    pub read_data: bool,
    /// Only a share of the packs is read: those that were read longest ago.
    pub subset: Option<Share>,
    /// Who remembers which packs were read; needed where only a share is.
    pub actor: Option<Actor>,
}

setters! {
    CheckOptions {
        selector: Option<Selector>,
        node: Option<NodeName>,
        read_data: bool,
        subset: Option<Share>,
        actor: Option<Actor>,
    }
}

/// A fault that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckFault {
    /// The object or file.
    pub entry: String,
    /// What is wrong with it.
    pub problem: String,
    /// The snapshots that need the object, oldest first, where it is known which do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotId>,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// No fault was found.
    pub ok: bool,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Units opened and compared; 0 without `read_data`.
    pub chunks: u64,
    /// Stored bytes read, or whose presence was confirmed.
    pub bytes: u64,
    /// How much was read by this check and earlier ones, where that is remembered.
    pub coverage: Option<Coverage>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// The faults.
    pub errors: Vec<CheckFault>,
}

/// Checks a vault. Faults are in the report; an error is what kept the check from being made.
///
/// ```
/// # use highwater::{Actor, Backup, Secret, Vault};
/// # let scratch = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(scratch.path()).unwrap();
/// # std::fs::create_dir("node").unwrap();
/// # std::fs::write("node/state", "seven channels").unwrap();
/// # let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
/// # let vault = Vault::create(&"vault".parse()?, &secret)?;
/// # let actor = Actor::new("state", "operator@node-1");
/// # let backup = Backup::of("node").run(&vault, &actor)?;
/// use highwater::vault::{CheckOptions, check};
///
/// let options = CheckOptions::default().read_data(true);
/// let report = check(&vault, &options, &vault.control())?;
/// for fault in &report.errors {
///     println!("{}: {}", fault.entry, fault.problem);
/// }
/// assert!(report.ok);
/// # Ok::<(), highwater::Error>(())
/// ```
pub fn check(vault: &Vault, options: &CheckOptions, control: &Control) -> Result<CheckReport> {
    if options.subset.is_some() && !(options.read_data && options.actor.is_some()) {
        return Err(
            Error::input("a share was given where no data is read").with_remedy(Remedy::CheckData)
        );
    }
    let _span = tracing::info_span!("check", read_data = options.read_data).entered();
    let mut report = CheckReport::default();
    let objects = vault.store().list(None)?;
    let sizes: BTreeMap<&str, u64> =
        objects.iter().map(|listed| (listed.name.as_str(), listed.size)).collect();
    let mut looked = Looked { vault, sizes: &sizes, names: Vec::new(), packs: BTreeMap::new() };
    match (&options.selector, &options.node) {
        (Some(selector), _) => looked.note(&vault.resolve(selector)?.manifest, &mut report),
        (None, Some(node)) => of_node(&mut looked, node, &mut report)?,
        (None, None) => check_documents(&mut looked, &objects, &mut report)?,
    }
    let Looked { names, mut packs, .. } = looked;
    report.snapshots = names.len() as u64;
    if options.read_data {
        let needed: BTreeSet<PackId> = packs.keys().copied().collect();
        if options.selector.is_none() && options.node.is_none() {
            add_unreferenced_packs(&objects, &mut packs, &mut report);
        }
        let read = Packs { all: &packs, needed: &needed, objects: &objects };
        let chosen = read_packs(vault, options, read, control, &mut report)?;
        let chosen = chosen.as_ref().map(|chosen| (chosen, &packs));
        check_maps(vault, &names, chosen, control, &mut report)?;
    } else {
        report.bytes = packs.values().sum();
    }
    report.errors.sort_by(|a, b| (&a.entry, &a.problem).cmp(&(&b.entry, &b.problem)));
    report.errors.dedup();
    report.name_snapshots(vault, &names)?;
    report.ok = report.errors.is_empty();
    let CheckReport { snapshots, bytes, .. } = report;
    tracing::info!(snapshots, bytes, faults = report.errors.len(), "checked");
    Ok(report)
}

impl CheckReport {
    fn fault(&mut self, error: &Error) {
        let entry = error.entry().unwrap_or("the vault").to_owned();
        let problem = error.message().to_owned();
        self.errors.push(CheckFault { entry, problem, snapshots: Vec::new() });
    }

    /// Opens a manifest with its lists; damage is a fault. The manifest is returned all the same where only its lists
    /// are damaged, so that the snapshot is known that needs the damaged pack.
    fn open(&mut self, vault: &Vault, name: &SnapshotName) -> Result<Option<Manifest>> {
        let outline = vault.outline(name);
        // A prune may have deleted it since it was listed, or since it was opened; what is still listed is missing.
        let gone = || -> Result<bool> {
            let object = name.object();
            let listed = vault.store().list(Some(&Folder::Snapshots.object(&name.node)))?;
            Ok(!listed.iter().any(|listed| listed.name == object))
        };
        if outline.as_ref().is_err_and(|error| error.kind() == Kind::NotFound) && gone()? {
            return Ok(None);
        }
        let Some(mut manifest) = self.judge(outline)? else { return Ok(None) };
        let filled = vault.fill_in(&mut manifest);
        if filled.is_err() && gone()? {
            return Ok(None);
        }
        self.judge(filled)?;
        Ok(Some(manifest))
    }

    /// Names with each fault of an object the snapshots that need it.
    fn name_snapshots(&mut self, vault: &Vault, names: &[SnapshotName]) -> Result<()> {
        let faulty = self.errors.iter().map(|fault| fault.entry.clone());
        let mut of: BTreeMap<String, Vec<SnapshotId>> =
            faulty.map(|entry| (entry, Vec::new())).collect();
        // Most often there is no fault, and nothing to be opened again.
        let names = if of.is_empty() { &[] } else { names };
        for name in names {
            let manifest = match vault.outline(name) {
                Ok(manifest) => manifest,
                // Told already, or deleted since by a prune.
                Err(error) if is_fault(&error) => continue,
                Err(error) => return Err(error),
            };
            for pack in &manifest.packs {
                if let Some(snapshots) = of.get_mut(&pack_name(pack.id)) {
                    snapshots.push(manifest.snapshot);
                }
            }
        }
        for fault in &mut self.errors {
            fault.snapshots = of.get(&fault.entry).cloned().unwrap_or_default();
        }
        Ok(())
    }

    /// Takes what is wrong with an object as a fault, and passes on what kept us from looking.
    fn judge<T>(&mut self, looked: Result<T>) -> Result<Option<T>> {
        match looked {
            Ok(value) => Ok(Some(value)),
            // A version that nobody has written yet may be a flipped bit: it is named like one.
            Err(error) if is_fault(&error) => {
                self.fault(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an error says that an object is damaged or missing, and not that it can't be looked at.
fn is_fault(error: &Error) -> bool {
    matches!(error.kind(), Kind::Corrupt | Kind::NotFound | Kind::Input)
}

/// What was seen of the snapshots. No manifest is kept: a vault has many, each of many entries and packs.
struct Looked<'a> {
    vault: &'a Vault,
    sizes: &'a BTreeMap<&'a str, u64>,
    names: Vec<SnapshotName>,
    /// Those that are there, with their sizes.
    packs: BTreeMap<PackId, u64>,
}

impl Looked<'_> {
    /// Reads the lists of a manifest, and notes the snapshot.
    fn judge(&mut self, name: &SnapshotName, report: &mut CheckReport) -> Result<()> {
        if let Some(manifest) = report.open(self.vault, name)? {
            self.note(&manifest, report);
        }
        Ok(())
    }

    /// Looks for the packs of a snapshot.
    fn note(&mut self, manifest: &Manifest, report: &mut CheckReport) {
        self.names.push(SnapshotName::of(manifest));
        for pack in &manifest.packs {
            let name = pack_name(pack.id);
            match self.sizes.get(name.as_str()) {
                Some(&size) if size == pack.size => {
                    self.packs.insert(pack.id, size);
                }
                Some(&size) => {
                    let problem =
                        format!("the pack has {size} bytes and should have {}", pack.size);
                    report.fault(&Error::corrupt(problem).with_entry(name));
                }
                None => report.fault(&Error::corrupt("the pack is missing").with_entry(name)),
            }
        }
    }
}

/// The snapshots of a node; a damaged manifest is a fault.
fn of_node(looked: &mut Looked<'_>, node: &NodeName, report: &mut CheckReport) -> Result<()> {
    let vault = looked.vault;
    let names = vault.snapshot_names(Some(node))?;
    if names.is_empty() {
        return Err(Error::not_found(format!("the vault holds no snapshot of node `{node}`")));
    }
    report.judge(vault.sound_record(node))?;
    for name in &names {
        looked.judge(name, report)?;
    }
    Ok(())
}

/// Opens every object but the packs, and notes the snapshots that are visible.
fn check_documents(
    seen: &mut Looked<'_>,
    objects: &[Listed],
    report: &mut CheckReport,
) -> Result<()> {
    let vault = seen.vault;
    // Where a record that hides snapshots is damaged, all of them are looked at.
    let visible = report.judge(vault.snapshot_names(None))?;
    let visible: Option<BTreeSet<SnapshotName>> =
        visible.map(|visible| visible.into_iter().collect());
    for (place, Listed { name, .. }) in objects.iter().enumerate() {
        let folder = Folder::of(name);
        let looked = match folder {
            None if name == HEADER => check_header(vault),
            Some(Folder::Keys) => check_slot(vault, name),
            Some(Folder::Intents) => vault.open_intent(name).map(drop),
            Some(Folder::Nodes) => vault.open_node_record(name).and_then(|record| {
                let lost = match is_newest(name, objects.get(place + 1)) {
                    true => vault.lost_newest(&record.node)?,
                    false => None,
                };
                let Some(snapshot) = lost else { return Ok(()) };
                Err(Error::corrupt("the newest snapshot of the node is missing").with_entry(
                    Folder::Snapshots.object(format_args!("{}/…-{snapshot}", record.node)),
                ))
            }),
            Some(Folder::Witness) => vault.open_witness(name).map(drop),
            Some(Folder::Snapshots) => match SnapshotName::parse(name) {
                Some(parsed) => {
                    // The packs of one that nobody sees may be gone already.
                    let is_visible =
                        visible.as_ref().is_none_or(|visible| visible.contains(&parsed));
                    match is_visible {
                        true => seen.judge(&parsed, report),
                        false => vault.outline(&parsed).map(drop),
                    }
                }
                None => Err(foreign(name)),
            },
            Some(Folder::Trash) => vault.open_trash(name).map(drop),
            Some(Folder::Packs) => Ok(()),
            None => Err(foreign(name)),
        };
        // A backup that has ended, or a prune, may have deleted it since it was listed.
        let vanished = looked.as_ref().is_err_and(|error| error.kind() == Kind::NotFound)
            && vault.store().size(name)?.is_none();
        // What was forgotten, or put behind a fence, keeps nobody from anything.
        let unseen = folder == Some(Folder::Snapshots)
            && looked.as_ref().is_err_and(|error| error.kind() == Kind::Corrupt)
            && SnapshotName::parse(name)
                .zip(visible.as_ref())
                .is_some_and(|(parsed, visible)| !visible.contains(&parsed));
        if unseen {
            report.warnings.push(format!("{name} is damaged, and belongs to no visible snapshot"));
        } else if !vanished {
            report.judge(looked)?;
        }
    }
    if !objects.iter().any(|listed| listed.name == HEADER) {
        report.fault(&Error::corrupt("it is missing").with_entry(HEADER));
    }
    let names = objects.iter().filter_map(|listed| SnapshotName::parse(&listed.name));
    let nodes: BTreeSet<NodeName> = names.map(|name| name.node).collect();
    for node in &nodes {
        report.judge(vault.sound_record(node))?;
    }
    Ok(())
}

fn check_header(vault: &Vault) -> Result<()> {
    let header = header::Header::parse(&vault.store().get(HEADER)?)?;
    header.verify(vault.master())?;
    if header.vault != vault.id() {
        return Err(Error::corrupt("it is of another vault").with_entry(HEADER));
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

/// Whether a record is the last one of its node: objects are listed in order, and `next` follows it.
fn is_newest(name: &str, next: Option<&Listed>) -> bool {
    let folder = |name: &str| name.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    next.is_none_or(|next| folder(&next.name) != folder(name))
}

/// Packs that no snapshot needs (of a backup that runs, or was killed) are read as well.
fn add_unreferenced_packs(
    objects: &[Listed],
    packs: &mut BTreeMap<PackId, u64>,
    report: &mut CheckReport,
) {
    let faulty: BTreeSet<String> = report.errors.iter().map(|fault| fault.entry.clone()).collect();
    for Listed { name, size, .. } in objects {
        if Folder::of(name) != Some(Folder::Packs) || faulty.contains(name) {
            continue;
        }
        match pack_of(name) {
            Some(id) => {
                packs.insert(id, *size);
            }
            None => report.fault(&foreign(name)),
        }
    }
}

/// The packs of a check.
struct Packs<'a> {
    /// Those that can be read, with their sizes.
    all: &'a BTreeMap<PackId, u64>,
    /// Those that snapshots need.
    needed: &'a BTreeSet<PackId>,
    /// What is in the vault.
    objects: &'a [Listed],
}

/// Reads the packs, or the share of them that is due, and remembers which. Returns that share.
fn read_packs(
    vault: &Vault,
    options: &CheckOptions,
    packs: Packs<'_>,
    control: &Control,
    report: &mut CheckReport,
) -> Result<Option<BTreeSet<PackId>>> {
    let mut memory = match &options.actor {
        Some(actor) => Some(Checked::load(actor, vault.id())?),
        None => None,
    };
    report.warnings.extend(memory.iter_mut().filter_map(|memory| memory.warning.take()));
    let chosen = memory.as_ref().zip(options.subset);
    let chosen = chosen.map(|(memory, share)| memory.choose(packs.all, share));
    let read: BTreeMap<PackId, u64> = packs
        .all
        .iter()
        .filter(|(id, _)| chosen.as_ref().is_none_or(|chosen| chosen.contains(id)))
        .map(|(&id, &size)| (id, size))
        .collect();
    let mut looked = Vec::new();
    let checked = check_packs(vault, &read, packs.needed, control, &mut looked, report);
    if let (Some(memory), Some(actor)) = (&mut memory, &options.actor) {
        let now = control.env.now();
        looked.iter().for_each(|&(id, good)| memory.note(id, good, now));
        // Packs of other nodes and snapshots are remembered as well.
        let known = packs.objects.iter().filter_map(|listed| pack_of(&listed.name)).collect();
        memory.save(actor, &known)?;
        report.coverage = Some(memory.coverage(packs.all));
    }
    checked.map(|()| chosen)
}

fn pack_of(name: &str) -> Option<PackId> {
    let id = Folder::Packs.strip(name)?.split_once('/')?.1.parse::<PackId>().ok()?;
    (pack_name(id) == name).then_some(id)
}

/// Reads every byte of the packs; tells which were read whole, and which were good.
fn check_packs(
    vault: &Vault,
    packs: &BTreeMap<PackId, u64>,
    needed: &BTreeSet<PackId>,
    control: &Control,
    looked: &mut Vec<(PackId, bool)>,
    report: &mut CheckReport,
) -> Result<()> {
    control.report(Event::Stage { name: "check", bytes_total: packs.values().sum() });
    let queue = Mutex::new(packs.iter().map(|(&id, &size)| PackRef { id, size }));
    let next = || queue.lock().next();
    let found = Mutex::new(Vec::new());
    let ended = Mutex::new(Vec::new());
    let end = |id, good| ended.lock().push((id, good));
    let read = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..vault.store().readers(READERS))
            .map(|_| {
                scope.spawn(|| {
                    let mut looked = (0, 0);
                    let mut buffer = AlignedBuffer::default();
                    while let Some(pack) = next() {
                        control.cancel.check()?;
                        match check_pack(vault, pack, &mut buffer, control) {
                            Ok(units) => {
                                looked.0 += units;
                                looked.1 += pack.size;
                                end(pack.id, true);
                            }
                            // A prune has deleted it since it was listed.
                            Err(_)
                                if !needed.contains(&pack.id)
                                    && vault.store().size(&pack_name(pack.id))?.is_none() => {}
                            // One that is deleted on purpose was forgotten since.
                            Err(error)
                                if error.kind() == Kind::NotFound
                                    && vault.trash()?.claims(pack.id) => {}
                            Err(error)
                                if matches!(
                                    error.kind(),
                                    Kind::Corrupt | Kind::Input | Kind::NotFound
                                ) =>
                            {
                                end(pack.id, false);
                                found.lock().push(error);
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
    });
    let found = found.into_inner();
    found.iter().for_each(|error| report.fault(error));
    *looked = ended.into_inner();
    read
}

/// Opens every frame of a pack and compares every unit with its id; counts the units.
fn check_pack(
    vault: &Vault,
    pack: PackRef,
    buffer: &mut AlignedBuffer,
    control: &Control,
) -> Result<u64> {
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
        vault.store().read(&open.name, start..end, buffer)?;
        let bytes = buffer.bytes_mut();
        for number in frame..=last {
            let record = index.frame(number);
            let wrong = || {
                Error::corrupt(format!("frame {number} of the pack was changed"))
                    .with_entry(&open.name)
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

/// Loads the map of every file, or of those in the packs that were read: each unit that a snapshot
/// names is one that a pack holds.
fn check_maps(
    vault: &Vault,
    names: &[SnapshotName],
    chosen: Option<(&BTreeSet<PackId>, &BTreeMap<PackId, u64>)>,
    control: &Control,
    report: &mut CheckReport,
) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        // What is wrong with its lists was told when they were read first; what could be read is there.
        let Some(manifest) = report.open(vault, name)? else { continue };
        let manifest = &manifest;
        for entry in manifest.entries() {
            for number in 0..entry.leaves.len() {
                control.cancel.check()?;
                // One that names what is not there is due whatever the share.
                let packs = leaf_packs(manifest, &entry.leaves[number]);
                let due = chosen.is_none_or(|(chosen, there)| {
                    let due =
                        |pack: &PackRef| chosen.contains(&pack.id) || !there.contains_key(&pack.id);
                    packs.as_ref().is_none_or(|packs| packs.iter().any(due))
                });
                if !due || !seen.insert(leaf_identity(manifest, entry, number)) {
                    continue;
                }
                report.judge(vault.load_leaf(manifest, entry, number).map(drop))?;
            }
        }
    }
    Ok(())
}

/// The same leaf in another snapshot needs no second look.
fn leaf_identity(manifest: &Manifest, entry: &EntryRecord, number: usize) -> blake3::Hash {
    let leaf = &entry.leaves[number];
    let packs = leaf_packs(manifest, leaf).unwrap_or_default();
    blake3::hash(format!("{:?} {} {:?} {packs:?}", leaf.content, entry.size, leaf.runs).as_bytes())
}
