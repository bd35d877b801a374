//! Reading an archive from its beginning to its end, once, in bounded memory: nothing is handed on
//! as an object before the hash behind it was compared.

use std::io::{ErrorKind, Read};

use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::vault::{
    Folder, HEADER_NAME, Header as VaultHeader, MasterKey, SLOTS_MAX, Secret, SlotDoc,
};
use crate::vault::{MANIFEST_BYTES_MAX, PLAIN_BYTES_MAX};

use super::Received;
use super::format::{self, Head, Header};

/// The input is read in pieces of this many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// An object of an archive: its name, where its bytes begin, how many they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// An archive on its way in.
pub(super) struct Reader<'a> {
    source: Source<'a>,
    header_bytes: [u8; format::HEADER_BYTES],
    pub(super) header: Header,
    objects: u64,
    /// The end marker's first bytes, once they were met.
    ended: Option<[u8; format::HEAD_BYTES]>,
}

/// Bytes, counted and hashed.
struct Source<'a> {
    name: String,
    input: Box<dyn Read + 'a>,
    control: &'a Control,
    hasher: blake3::Hasher,
    at: u64,
}

/// What an archive tells of its vault.
pub(super) struct Preamble {
    pub(super) vault: VaultHeader,
    pub(super) slots: Vec<SlotDoc>,
}

impl<'a> Reader<'a> {
    /// Reads the header. `name` is what errors call the archive.
    pub(super) fn open(
        name: &str,
        input: Box<dyn Read + 'a>,
        control: &'a Control,
    ) -> Result<Reader<'a>> {
        let mut source = Source {
            name: name.to_owned(),
            input: Box::new(std::io::BufReader::with_capacity(PIECE_BYTES, input)),
            control,
            hasher: blake3::Hasher::new(),
            at: 0,
        };
        let mut header_bytes = [0; format::HEADER_BYTES];
        source.fill(&mut header_bytes)?;
        let header = Header::parse(&header_bytes).map_err(|error| match error.kind() {
            Kind::Corrupt => source.wrong(error.message()),
            _ => error.with_entry(name),
        })?;
        Ok(Reader { source, header_bytes, header, objects: 0, ended: None })
    }

    /// What errors call the archive.
    pub(super) fn name(&self) -> &str {
        &self.source.name
    }

    /// Reads the vault's header and its slots, and leaves off before the manifest.
    pub(super) fn preamble(&mut self) -> Result<(Preamble, Entry)> {
        let first = self.next()?.filter(|entry| entry.name == HEADER_NAME);
        let first =
            first.ok_or_else(|| self.wrong("the vault's header is not its first object"))?;
        let vault = VaultHeader::parse(&self.body(&first, PLAIN_BYTES_MAX)?)?;
        let mut slots: Vec<SlotDoc> = Vec::new();
        let mut before = String::new();
        loop {
            let entry = self.next()?.ok_or_else(|| self.wrong("it ends without a manifest"))?;
            if Folder::of(&entry.name) != Some(Folder::Keys) {
                if slots.is_empty() || vault.vault != self.header.vault {
                    return Err(self.wrong("its objects are not those of one vault"));
                }
                return Ok((Preamble { vault, slots }, entry));
            }
            let slot = SlotDoc::parse(&entry.name, &self.body(&entry, PLAIN_BYTES_MAX)?)?;
            if slot.vault() != self.header.vault || entry.name <= before || slots.len() == SLOTS_MAX
            {
                return Err(self.wrong("its key slots are not those of its vault"));
            }
            before = entry.name;
            slots.push(slot);
        }
    }

    /// The bytes of the manifest that `entry` announces.
    pub(super) fn manifest(&mut self, entry: &Entry) -> Result<Vec<u8>> {
        if Folder::of(&entry.name) != Some(Folder::Snapshots) {
            return Err(self.wrong("no manifest follows the key slots"));
        }
        self.body(entry, MANIFEST_BYTES_MAX)
    }

    /// Corrupt where the header was not made under the vault's key.
    pub(super) fn authenticate(&self, master: &MasterKey) -> Result<()> {
        format::verify_header(&self.header_bytes, master)
            .map_err(|error| self.wrong(error.message()))
    }

    /// The next object; `None` at the end marker, which [`Reader::end`] verifies.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        self.source.control.cancel.check()?;
        let mut head = [0; format::HEAD_BYTES];
        let before = self.source.hasher.clone();
        self.source.fill(&mut head)?;
        let head_parsed = format::parse_head(&head).ok_or_else(|| self.wrong("it was changed"))?;
        let Head::Object { name, size } = head_parsed else {
            // The marker tells the hash of what stands before it.
            self.source.hasher = before;
            self.ended = Some(head);
            return Ok(None);
        };
        let mut bytes = vec![0; name];
        self.source.fill(&mut bytes)?;
        let name = String::from_utf8(bytes).map_err(|_| self.wrong("it was changed"))?;
        let room = self.header.bytes.saturating_sub(self.source.at);
        if size > room || self.objects == self.header.objects {
            return Err(self.wrong("it holds more than its header says"));
        }
        self.objects += 1;
        Ok(Some(Entry { name, offset: self.source.at, size }))
    }

    /// The bytes of the object that [`Reader::next`] told of, once its hash has fitted.
    pub(super) fn body(&mut self, entry: &Entry, size_max: u64) -> Result<Vec<u8>> {
        if entry.size > size_max {
            return Err(self.wrong("an object is longer than it can be"));
        }
        let mut bytes = Vec::new();
        self.pass(entry, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Hands the bytes of an object on, piece by piece. They are what was written only once this
    /// has returned.
    pub(super) fn pass(
        &mut self,
        entry: &Entry,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut piece = vec![0; PIECE_BYTES.min(entry.size as usize)];
        let mut left = entry.size;
        while left > 0 {
            self.source.control.cancel.check()?;
            let length = left.min(PIECE_BYTES as u64);
            self.source.fill(&mut piece[..length as usize])?;
            sink(&piece[..length as usize])?;
            left -= length;
        }
        let expected = self.source.hasher.finalize();
        let mut hash = [0; format::HASH_BYTES];
        self.source.fill(&mut hash)?;
        if expected != hash {
            return Err(self.wrong("it was changed"));
        }
        Ok(())
    }

    /// Verifies the end marker, and that nothing follows it. Returns the number of bytes.
    pub(super) fn end(&mut self, master: &MasterKey) -> Result<u64> {
        self.end_by(|header, objects, before, hash, found| {
            *found == format::marker(header, objects, before, hash, master)
        })
    }

    /// Reads all of it, without a key: nothing is left out, changed or added, whoever made it.
    pub(super) fn whole(mut self) -> Result<Received> {
        let (_, manifest) = self.preamble()?;
        if Folder::of(&manifest.name) != Some(Folder::Snapshots) {
            return Err(self.wrong("no manifest follows the key slots"));
        }
        let mut next = Some(manifest);
        while let Some(entry) = next {
            self.pass(&entry, &mut |_| Ok(()))?;
            next = self.next()?;
        }
        let bytes = self.end_by(|_, objects, before, hash, found| {
            format::marker_counts(found, objects, before, hash)
        })?;
        let Header { vault, snapshot, since, .. } = self.header;
        Ok(Received { vault, snapshot, since: since.map(|(since, _)| since), bytes })
    }

    fn end_by(
        &mut self,
        fits: impl FnOnce(&Header, u64, u64, &blake3::Hash, &[u8; format::MARKER_BYTES]) -> bool,
    ) -> Result<u64> {
        let head = self.ended.ok_or_else(|| Error::bug("an archive is ended before its end"))?;
        let before = self.source.at - format::HEAD_BYTES as u64;
        let hash = self.source.hasher.finalize();
        let mut marker = [0; format::MARKER_BYTES];
        marker[..format::HEAD_BYTES].copy_from_slice(&head);
        self.source.fill(&mut marker[format::HEAD_BYTES..])?;
        if !fits(&self.header, self.objects, before, &hash, &marker) {
            return Err(self.wrong("its end marker does not fit"));
        }
        if self.objects != self.header.objects || self.source.at != self.header.bytes {
            return Err(self.wrong("it holds less than its header says"));
        }
        let mut more = [0; 1];
        if self.source.read(&mut more)? > 0 {
            return Err(self.wrong("something follows its end"));
        }
        Ok(self.source.at)
    }

    /// An error of kind corrupt that names the archive and where in it.
    pub(super) fn wrong(&self, what: &str) -> Error {
        self.source.wrong(what)
    }
}

impl Source<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            let read = self.read(&mut bytes[filled..])?;
            if read == 0 {
                // Who was interrupted stops a pipeline in the middle.
                self.control.cancel.check()?;
                self.at += filled as u64;
                return Err(self.wrong("it is cut"));
            }
            filled += read;
        }
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        loop {
            match self.input.read(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    self.control.cancel.check()?;
                }
                read => {
                    return read.map_err(|error| {
                        Error::io("reading the archive", error).with_entry(&self.name)
                    });
                }
            }
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::corrupt(format!("the archive is damaged, at byte {} or before: {what}", self.at))
            .with_entry(&self.name)
            .with_remedy("copy it again from where it was made, or export again")
    }
}

impl Preamble {
    /// The vault's key, where `secret` opens a slot.
    pub(super) fn unlock(&self, secret: &Secret) -> Result<MasterKey> {
        if let Some(master) = SlotDoc::unlock(&self.slots, secret)? {
            self.verify(&master)?;
            return Ok(master);
        }
        Err(Error::denied("this key opens no slot of the archive's vault")
            .with_remedy("another key file, the passphrase, or the recovery words may open it"))
    }

    /// Corrupt where the header or a slot was not made under the vault's key.
    pub(super) fn verify(&self, master: &MasterKey) -> Result<()> {
        self.vault.verify(master)?;
        self.slots.iter().try_for_each(|slot| slot.verify(master))
    }
}
