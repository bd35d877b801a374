//! The recovery kit: a small sealed file with the identity keys and what never changes of each
//! channel. When every backup is gone, it is enough to contact the peers and have them close.
//!
//! A kit can't be used against its node: what a peer could punish (a commitment, its number, a
//! revocation secret) has no place in it, and so it never goes out of date but for channels opened
//! after it. The format is documented byte by byte in `docs/kit-format.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::ids::{NodeName, NodeUid, Time};
use crate::node::{NodeFile, node_name};

mod beside;
mod file;
mod sealed;
mod secret;
#[cfg(test)]
mod tests;

pub use beside::{BESIDE, read_beside, read_content, write_beside};
pub use file::{read_file, write_file};
#[cfg(any(fuzzing, test))]
pub(crate) use sealed::fuzzing;
pub use sealed::{KitHeader, describe, open, seal};

/// The version that this program writes, and the newest that it reads.
const VERSION: u32 = 1;

const TEXT_BYTES_MAX: usize = 256;
const SECRET_BYTES_MAX: usize = 4096;
const IDENTITY_KEYS_MAX: usize = 64;
const ADDRESSES_MAX: usize = 16;
const FIELDS_MAX: usize = 32;

/// A recovery kit, opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kit {
    /// The version of this document; 1.
    pub version: u32,
    /// The node's name.
    pub node: NodeName,
    /// The node; `None` where its directory had never been backed up.
    pub uid: Option<NodeUid>,
    /// When it was sealed: channels that were opened later are not in it.
    pub time: Time,
    /// The keys by which the peers know the node.
    pub identity: Vec<IdentityKey>,
    /// Its channels.
    pub channels: Vec<KitChannel>,
}

/// What a node knows for its kit; the rest of a [`Kit`] is known outside of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KitContent {
    /// The version of this document; 1.
    pub version: u32,
    /// The keys by which the peers know the node; one at least.
    pub identity: Vec<IdentityKey>,
    /// All its channels, also those that are not funded yet.
    pub channels: Vec<KitChannel>,
}

/// A secret key of the node, or the seed that its keys follow from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityKey {
    /// What the node calls it.
    pub name: String,
    /// Its bytes, 1 to 4096; in JSON as hexadecimal digits.
    #[serde(with = "secret")]
    pub secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.name)
    }
}

/// What never changes of a channel, and where its peer was last reached. Each text has at most 256
/// bytes and no control characters: a transaction or a signed state does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KitChannel {
    /// The node's own name of it.
    pub id: String,
    /// The peer's public key, as the node writes it.
    pub peer: String,
    /// Where the peer was reached, at most 16, the best first. The only thing that may change.
    pub addresses: Vec<String>,
    /// The output that funds it: `transaction:index`.
    pub funding: String,
    /// In the smallest unit of its chain: satoshis, on Bitcoin.
    pub capacity: u64,
    /// What else the node needs to claim its balance once the peer has closed, at most 32 fields: for
    /// example the index from which the channel's keys are derived. No secrets: those are `identity`.
    pub keys: BTreeMap<String, String>,
}

/// A node that can tell what belongs into its kit.
pub trait KitSource {
    /// Its identity keys and all its channels.
    fn kit(&self) -> Result<KitContent>;
}

impl KitSource for KitContent {
    fn kit(&self) -> Result<KitContent> {
        Ok(self.clone())
    }
}

impl KitContent {
    /// Of these keys and channels.
    pub fn new(identity: Vec<IdentityKey>, channels: Vec<KitChannel>) -> KitContent {
        KitContent { version: VERSION, identity, channels }
    }
}

impl Kit {
    /// The kit of the node in `dir`, as of `time`. It is named as a backup names it: `node`, or the
    /// directory's name.
    pub fn of_dir(
        dir: &Path,
        node: Option<&NodeName>,
        content: KitContent,
        time: Time,
    ) -> Result<Kit> {
        let failed =
            |error| Error::io("the node directory", error).with_entry(dir.display().to_string());
        let dir = dir.canonicalize().map_err(failed)?;
        let kit = Kit {
            version: VERSION,
            node: node_name(&dir, node)?,
            uid: NodeFile::read(&dir)?.map(|file| file.uid),
            time,
            identity: content.identity,
            channels: content.channels,
        };
        kit.validate().map_err(Error::input)?;
        Ok(kit)
    }

    /// As an indented JSON document, with all its secrets.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut text = secret::json(self, true, 1)?;
        text.push(b'\n');
        Ok(text)
    }

    fn validate(&self) -> Result<(), String> {
        validate(&self.identity, &self.channels)
    }
}

fn validate(identity: &[IdentityKey], channels: &[KitChannel]) -> Result<(), String> {
    if identity.is_empty() {
        return Err("it has no identity key: no peer would know the node".to_owned());
    }
    if identity.len() > IDENTITY_KEYS_MAX {
        return Err(format!("it has more than {IDENTITY_KEYS_MAX} identity keys"));
    }
    let mut names = BTreeSet::new();
    for key in identity {
        check_text("the name of an identity key", &key.name)?;
        if !(1..=SECRET_BYTES_MAX).contains(&key.secret.len()) {
            let name = &key.name;
            return Err(format!("the identity key `{name}` has not 1 to {SECRET_BYTES_MAX} bytes"));
        }
        if !names.insert(&key.name) {
            return Err(format!("the identity key `{}` stands in it twice", key.name));
        }
    }
    let mut ids = BTreeSet::new();
    for channel in channels {
        check_channel(channel)?;
        if !ids.insert(&channel.id) {
            return Err(format!("the channel `{}` stands in it twice", channel.id));
        }
    }
    Ok(())
}

fn check_channel(channel: &KitChannel) -> Result<(), String> {
    check_text("the id of a channel", &channel.id)?;
    let id = &channel.id;
    let named = |what: &str| format!("{what} of the channel `{id}`");
    check_text(&named("the peer"), &channel.peer)?;
    check_text(&named("the funding"), &channel.funding)?;
    for address in &channel.addresses {
        check_text(&named("an address"), address)?;
    }
    for (name, value) in &channel.keys {
        check_text(&named("the name of a field"), name)?;
        check_text(&named(&format!("`{name}`")), value)?;
    }
    if channel.addresses.len() > ADDRESSES_MAX || channel.keys.len() > FIELDS_MAX {
        return Err(format!(
            "the channel `{id}` has more than {ADDRESSES_MAX} addresses or {FIELDS_MAX} fields"
        ));
    }
    Ok(())
}

fn check_text(what: &str, text: &str) -> Result<(), String> {
    let fits = (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    Err(format!("{what} has not 1 to {TEXT_BYTES_MAX} bytes without control characters"))
}

/// The document in `text`. Input where a newer program wrote it; else `wrong` says what it means that
/// it can't be read, of which only the place is reported: the text holds secrets.
fn parse<T: DeserializeOwned>(text: &[u8], wrong: impl Fn(String) -> Error) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }

    let at = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        wrong(format!("it can't be read at line {line}, column {column}"))
    };
    let Versioned { version } = serde_json::from_slice(text).map_err(at)?;
    if version > u64::from(VERSION) {
        let what = format!("it has version {version}; this program knows version {VERSION}");
        return Err(Error::input(what).with_remedy("use a newer highwater"));
    }
    if version != u64::from(VERSION) {
        return Err(wrong(format!("there is no version {version}")));
    }
    serde_json::from_slice(text).map_err(at)
}
