//! Writing an archive: the vault's own sealed objects, none of them sealed again, each pack opened on
//! its way so that no archive is made of what is damaged.

use std::collections::HashSet;
use std::io::Write;

use crate::control::{Control, Event};
use crate::direct::AlignedBuffer;
use crate::env::FaultPoint;
use crate::error::{Error, Remedy, Result};
use crate::ids::PackId;
use crate::vault::manifest::PackRef;
use crate::vault::pack::{open_frame, pack_name, unit_range};
use crate::vault::{
    ContentId, HEADER_NAME, Header as VaultHeader, Manifest, Selector, SnapshotName, Vault,
};

use super::format::{self, Header};
use super::{ExportOptions, ExportReport};

/// Frames are read together, up to this many stored bytes.
const READ_BYTES: u64 = 4 << 20;

/// A snapshot of the vault, as it goes into an archive.
pub(super) struct Chosen {
    pub(super) name: SnapshotName,
    pub(super) object: bytes::Bytes,
    pub(super) manifest: Manifest,
    pub(super) content: ContentId,
}

/// All that an archive is made of, before a pack is read.
pub(super) struct Settled {
    pub(super) snapshot: Chosen,
    pub(super) since: Option<Chosen>,
    pub(super) header: Header,
    documents: Vec<(String, bytes::Bytes)>,
    packs: Vec<PackRef>,
}

/// Settles what goes into an archive, and with it how long the archive is.
pub(super) fn settle(vault: &Vault, options: &ExportOptions) -> Result<Settled> {
    let (snapshot, since) = choose(vault, options)?;
    let mut documents = vec![(HEADER_NAME.to_owned(), vault_header(vault)?)];
    documents.extend(slots(vault)?);
    documents.push((snapshot.name.object(), snapshot.object.clone()));
    let packs = packs_beyond(&snapshot.manifest, since.as_ref().map(|since| &since.manifest));
    let documents_len =
        documents.iter().map(|(name, bytes)| format::object_bytes(name, bytes.len() as u64));
    let packs_len = packs.iter().map(|pack| format::object_bytes(&pack_name(pack.id), pack.size));
    let header = Header {
        vault: vault.id(),
        snapshot: snapshot.name.snapshot,
        content: snapshot.content,
        since: since.as_ref().map(|since| (since.name.snapshot, since.content)),
        objects: (documents.len() + packs.len()) as u64,
        bytes: documents_len.chain(packs_len).sum::<u64>()
            + (format::HEADER_BYTES + format::MARKER_BYTES) as u64,
    };
    Ok(Settled { snapshot, since, header, documents, packs })
}

/// The two snapshots that an export is about.
fn choose(vault: &Vault, options: &ExportOptions) -> Result<(Chosen, Option<Chosen>)> {
    let snapshot = chosen(vault, &options.selector)?;
    let Some(since) = &options.since else { return Ok((snapshot, None)) };
    let since = Selector { node: Some(snapshot.manifest.node.clone()), ..since.clone() };
    let since = chosen(vault, &since)?;
    let place = |chosen: &Chosen| (chosen.name.epoch, chosen.name.seq);
    if place(&since) >= place(&snapshot) {
        return Err(Error::input(format!(
            "{} is not older than {}",
            since.name.snapshot, snapshot.name.snapshot
        ))
        .with_remedy(Remedy::ExportSince));
    }
    Ok((snapshot, Some(since)))
}

fn chosen(vault: &Vault, selector: &Selector) -> Result<Chosen> {
    let name = SnapshotName::of(&vault.resolve(selector)?.manifest);
    let object = vault.store().get(&name.object())?;
    let (manifest, content) = vault.open_outline(&name, &object)?;
    Ok(Chosen { name, object, manifest, content })
}

/// The packs of a snapshot that another one doesn't have, in the manifest's order.
pub(super) fn packs_beyond(manifest: &Manifest, since: Option<&Manifest>) -> Vec<PackRef> {
    let had: HashSet<PackId> =
        since.iter().flat_map(|since| &since.packs).map(|pack| pack.id).collect();
    manifest.packs.iter().filter(|pack| !had.contains(&pack.id)).copied().collect()
}

/// Writes the archive to `out`.
pub(super) fn write(
    vault: &Vault,
    settled: &Settled,
    out: &mut dyn Write,
    control: &Control,
) -> Result<ExportReport> {
    let start = control.env.monotonic();
    let Settled { snapshot, since, header, documents, packs } = settled;
    let pack_bytes: u64 = packs.iter().map(|pack| pack.size).sum();
    control.report(Event::Stage { name: "export", bytes_total: pack_bytes });
    let mut sealed = Output { out, hasher: blake3::Hasher::new(), at: 0, control };
    sealed.put(&header.to_bytes(vault.master()))?;
    for (name, bytes) in documents {
        sealed.begin(name, bytes.len() as u64)?;
        sealed.put(bytes)?;
        sealed.end()?;
    }
    for pack in packs {
        let name = pack_name(pack.id);
        sealed.begin(&name, pack.size)?;
        let begin = sealed.at;
        pass_pack(vault, *pack, &mut sealed, control)?;
        if sealed.at - begin != pack.size {
            return Err(Error::bug("a pack was not passed on as a whole").with_entry(name));
        }
        sealed.end()?;
    }
    let hash = sealed.hasher.finalize();
    let marker = format::marker(header, header.objects, sealed.at, &hash, vault.master());
    sealed.put(&marker)?;
    if sealed.at != header.bytes {
        return Err(Error::bug("an archive is longer than it says"));
    }
    sealed.out.flush().map_err(cant_write)?;
    Ok(ExportReport {
        snapshot: header.snapshot,
        node: snapshot.manifest.node.clone(),
        since: since.as_ref().map(|since| since.name.snapshot),
        packs: packs.len() as u64,
        bytes: sealed.at,
        hash: hash.to_hex().to_string(),
        duration: control.env.monotonic() - start,
    })
}

/// `vault.json` as it is stored, and still what this vault was opened by.
fn vault_header(vault: &Vault) -> Result<bytes::Bytes> {
    let bytes = vault.store().get(HEADER_NAME)?;
    let header = VaultHeader::parse(&bytes)?;
    header.verify(vault.master())?;
    if header != *vault.header() {
        return Err(
            Error::conflict("the vault was replaced by another one").with_entry(HEADER_NAME)
        );
    }
    Ok(bytes)
}

/// Every key slot, so that an archive alone, with any of the secrets, can be restored.
fn slots(vault: &Vault) -> Result<Vec<(String, bytes::Bytes)>> {
    let slots = vault.slot_documents()?;
    slots.iter().map(|slot| Ok((slot.object_name(), slot.to_bytes()?.into()))).collect()
}

/// Passes a pack on as it is stored; every frame is opened, and every unit compared with its id.
fn pass_pack(vault: &Vault, pack: PackRef, out: &mut Output<'_>, control: &Control) -> Result<()> {
    let open = vault.open_pack(pack)?;
    let index = &open.index;
    let mut plain = Vec::new();
    let mut copy = Vec::new();
    let mut buffer = AlignedBuffer::default();
    let mut frame = 0;
    let first = if index.frames() == 0 { pack.size } else { index.range(0).start };
    out.put(&vault.store().get_range(&open.name, 0..first)?)?;
    let mut end = first;
    while frame < index.frames() {
        control.cancel.check()?;
        let start = index.range(frame).start;
        let mut last = frame;
        while last + 1 < index.frames() && index.range(last + 1).end - start <= READ_BYTES {
            last += 1;
        }
        end = index.range(last).end;
        vault.store().read(&open.name, start..end, &mut buffer)?;
        let bytes = buffer.bytes();
        for number in frame..=last {
            let wrong = || {
                Error::corrupt(format!("frame {number} of the pack was changed"))
                    .with_entry(&open.name)
                    .with_remedy("export another snapshot")
                    .with_remedy(Remedy::CheckData)
            };
            let range = index.range(number);
            let stored = bytes.get((range.start - start) as usize..(range.end - start) as usize);
            copy.clear();
            copy.extend_from_slice(stored.ok_or_else(wrong)?);
            let record = index.frame(number);
            open_frame(&open.key, number as u64, record, &mut copy, &mut plain)
                .ok_or_else(wrong)?;
            for (place, unit) in (index.first_unit(number)..).take(record.units.into()).enumerate()
            {
                let id = vault.unit_keys().id(record.kind, &plain[unit_range(record, place)]);
                if index.unit_id(unit) != Some(id) {
                    return Err(wrong());
                }
            }
        }
        out.put(bytes)?;
        control.report(Event::Bytes(end - start));
        frame = last + 1;
    }
    out.put(&vault.store().get_range(&open.name, end..pack.size)?)
}

/// Where an archive goes, with the hash of all that went there.
struct Output<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    at: u64,
    control: &'a Control,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.control.env.fault(FaultPoint::ExportWrite)?;
        self.out.write_all(bytes).map_err(cant_write)?;
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        self.control.cancel.check()?;
        self.put(&format::object_head(name, size))?;
        self.put(name.as_bytes())
    }

    /// Ends an object with the hash of all bytes up to here.
    fn end(&mut self) -> Result<()> {
        let hash = self.hasher.finalize();
        self.put(hash.as_bytes())
    }
}

fn cant_write(error: std::io::Error) -> Error {
    let closed = error.kind() == std::io::ErrorKind::BrokenPipe;
    let found = Error::io("writing the archive", error);
    if closed {
        return found
            .with_remedy("the reader went away: what was written is not a complete archive");
    }
    found
}
