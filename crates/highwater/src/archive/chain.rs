//! Several archives at once: of one vault, none twice, none before what it builds on.

use std::collections::HashMap;

use crate::control::Control;
use crate::error::{Error, Remedy, Result};
use crate::vault::{MasterKey, Secret};

use super::Input;
use super::read::{Entry, Preamble, Reader};

/// An archive that was read up to its manifest.
pub(super) struct Begun<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) preamble: Preamble,
    /// The manifest, which comes next.
    pub(super) manifest: Entry,
}

/// Reads the beginnings of all archives, and refuses what can't be taken together. None of it is
/// authenticated yet.
pub(super) fn begin<'a>(inputs: Vec<Input<'a>>, control: &'a Control) -> Result<Vec<Begun<'a>>> {
    let mut begun: Vec<Begun<'a>> = Vec::with_capacity(inputs.len());
    for input in inputs {
        let mut reader = Reader::open(&input.name, input.read, control)?;
        let (preamble, manifest) = reader.preamble()?;
        if let Some(first) = begun.first()
            && first.reader.header.vault != reader.header.vault
        {
            return Err(Error::input("the archives are of different vaults").with_entry(input.name));
        }
        begun.push(Begun { reader, preamble, manifest });
    }
    if begun.is_empty() {
        return Err(Error::input("no archive was given"));
    }
    refuse_disorder(&begun)?;
    Ok(begun)
}

/// No snapshot twice, and none before the one that it builds on.
fn refuse_disorder(begun: &[Begun<'_>]) -> Result<()> {
    let mut places = HashMap::new();
    for (place, archive) in begun.iter().enumerate() {
        if places.insert(archive.reader.header.snapshot, place).is_some() {
            return Err(Error::conflict("the same snapshot comes twice")
                .with_entry(archive.reader.name())
                .with_remedy("give each archive once"));
        }
    }
    for (place, archive) in begun.iter().enumerate() {
        let Some((since, _)) = archive.reader.header.since else { continue };
        if places.get(&since).is_some_and(|&base| base > place) {
            return Err(Error::conflict(format!("it comes before {since}, which it builds on"))
                .with_entry(archive.reader.name())
                .with_remedy("give the archives in the order in which they were made"));
        }
    }
    Ok(())
}

/// Refuses archives that are not one chain: the first one whole, each other one built on the one
/// before it.
pub(super) fn refuse_gap(begun: &[Begun<'_>]) -> Result<()> {
    let mut before = None;
    for Begun { reader, .. } in begun {
        let header = &reader.header;
        if header.since != before {
            let what = match (header.since, before) {
                (Some((since, _)), None) => {
                    format!("it builds on {since}, which is in no archive before it")
                }
                (Some((since, _)), Some(_)) => {
                    format!("it builds on {since}, which is not the archive before it")
                }
                (None, _) => "it builds on no other archive, and yet follows one".to_owned(),
            };
            return Err(Error::conflict(what).with_entry(reader.name()).with_remedy("give one archive that builds on no other first, then each increment in its order").with_remedy(Remedy::ExportWhole));
        }
        before = Some((header.snapshot, header.content));
    }
    Ok(())
}

/// The vault's key, where `secret` opens a slot of one of the archives.
pub(super) fn unlock(begun: &[Begun<'_>], secret: &Secret) -> Result<MasterKey> {
    let mut denied = None;
    // A slot that was added lately is in the last one alone.
    for archive in begun.iter().rev() {
        match archive.preamble.unlock(secret) {
            Err(error) if error.kind() == crate::Kind::Denied => denied = Some(error),
            unlocked => return unlocked,
        }
    }
    Err(denied.unwrap_or_else(|| Error::bug("no archive is to be unlocked")))
}
