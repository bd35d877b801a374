//! The recovery kit: a small sealed file by which the peers of a node can be reached once every backup is gone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use highwater::kit as library;
use highwater::{Env, Error as LibraryError};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::same::same;
use crate::vault::{Vault, time};

/// A secret key of the node, or the seed that its keys follow from. It shows nothing of it by itself.
#[derive(uniffi::Object)]
pub struct IdentityKey {
    inner: library::IdentityKey,
}

#[uniffi::export]
impl IdentityKey {
    /// What the node calls it, and its bytes, 1 to 4096.
    #[uniffi::constructor]
    pub fn new(name: String, secret: Vec<u8>) -> Arc<IdentityKey> {
        let secret = Zeroizing::new(secret);
        Arc::new(IdentityKey { inner: library::IdentityKey { name, secret } })
    }

    /// What the node calls it.
    pub fn name(&self) -> String {
        self.inner.name.clone()
    }

    /// Its bytes.
    pub fn secret(&self) -> Vec<u8> {
        self.inner.secret.to_vec()
    }
}

/// What never changes of a channel, and where its peer was last reached. Each text has at most 256 bytes.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct KitChannel {
    /// The node's own name of it.
    pub id: String,
    /// The peer's public key, as the node writes it.
    pub peer: String,
    /// Where the peer was reached, at most 16, the best first. The only thing that may change.
    pub addresses: Vec<String>,
    /// The output that funds it: `transaction:index`.
    pub funding: String,
    /// In the smallest unit of its chain.
    pub capacity: u64,
    /// What else the node needs to claim its balance once the peer has closed, at most 32 fields. No secrets: those are
    /// identity keys.
    #[uniffi(default)]
    pub keys: HashMap<String, String>,
}

impl From<KitChannel> for library::KitChannel {
    fn from(channel: KitChannel) -> library::KitChannel {
        let KitChannel { id, peer, addresses, funding, capacity, keys } = channel;
        let keys = keys.into_iter().collect();
        library::KitChannel { id, peer, addresses, funding, capacity, keys }
    }
}

impl From<library::KitChannel> for KitChannel {
    fn from(channel: library::KitChannel) -> KitChannel {
        let library::KitChannel { id, peer, addresses, funding, capacity, keys } = channel;
        let keys = keys.into_iter().collect();
        KitChannel { id, peer, addresses, funding, capacity, keys }
    }
}

/// What a node knows for its kit.
#[derive(Clone, uniffi::Record)]
pub struct KitContent {
    /// The keys by which the peers know the node; one at least.
    pub identity: Vec<Arc<IdentityKey>>,
    /// All its channels, also those that are not funded yet.
    pub channels: Vec<KitChannel>,
}

impl From<KitContent> for library::KitContent {
    fn from(content: KitContent) -> library::KitContent {
        let identity = content.identity.iter().map(|key| key.inner.clone()).collect();
        let channels = content.channels.into_iter().map(library::KitChannel::from).collect();
        library::KitContent::new(identity, channels)
    }
}

same! {
    /// What opens a slot.
    pub enum SlotKind = highwater::vault::SlotKind {
        /// A key file.
        Key,
        /// A passphrase.
        Passphrase,
        /// Recovery words.
        Mnemonic,
    }
}

/// What a kit tells without a key.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct KitHeader {
    /// The id of the vault whose keys open it.
    pub vault: String,
    /// When it was sealed: channels that were opened later are not in it.
    pub time: SystemTime,
    /// What opens it: any of these keys of the vault.
    pub slots: Vec<SlotKind>,
    /// Its length in bytes.
    pub bytes: u64,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl From<library::KitHeader> for KitHeader {
    fn from(header: library::KitHeader) -> KitHeader {
        let slots: Vec<SlotKind> = header.slots.iter().map(|slot| slot.kind.into()).collect();
        let guessable = slots.contains(&SlotKind::Passphrase).then(|| {
            "the vault has a passphrase slot: whoever gets the kit can try passphrases on it"
                .to_owned()
        });
        KitHeader {
            vault: header.vault.to_string(),
            time: time(header.time),
            slots,
            bytes: header.bytes,
            warnings: guessable.into_iter().collect(),
        }
    }
}

/// A recovery kit, opened.
#[derive(Clone, uniffi::Record)]
pub struct Kit {
    /// The name of the node.
    pub node: String,
    /// The node's own id; none where its directory had never been backed up.
    pub uid: Option<String>,
    /// When it was sealed: channels that were opened later are not in it.
    pub time: SystemTime,
    /// The keys by which the peers know the node, and its channels.
    pub content: KitContent,
}

impl From<library::Kit> for Kit {
    fn from(kit: library::Kit) -> Kit {
        let key = |inner| Arc::new(IdentityKey { inner });
        Kit {
            node: kit.node.to_string(),
            uid: kit.uid.map(|uid| uid.to_string()),
            time: time(kit.time),
            content: KitContent {
                identity: kit.identity.into_iter().map(key).collect(),
                channels: kit.channels.into_iter().map(KitChannel::from).collect(),
            },
        }
    }
}

/// Writes what belongs into the kit into the node directory, durable and readable by its owner alone, so that a kit can
/// be sealed without the node. To be called when the node starts, and when a channel's funding is known, before the
/// funding is sent.
///
/// # Errors
/// Input where a text is too long, there is no identity key, or `keys` of a channel have another value than last time:
/// what changes could be used against the node.
#[uniffi::export]
pub fn write_kit_content(directory: String, content: KitContent) -> Result<()> {
    let content = library::KitContent::from(content);
    Ok(library::write_beside(Path::new(&directory), &content, &Env::system())?)
}

/// Seals the recovery kit of the node in `directory` into `file`, for all keys that open the vault now. Its content is
/// what the node has written beside its state, where none is given.
///
/// # Errors
/// Not found where no content is given and the node has written none; conflict where the file is there and is not to be
/// replaced; input where it lies in the node directory or the vault, with which it would be lost, or the content is
/// none.
#[uniffi::export(default(content = None, node = None, replace = false))]
pub fn export_kit(
    vault: Arc<Vault>,
    directory: String,
    file: String,
    content: Option<KitContent>,
    node: Option<String>,
    replace: bool,
) -> Result<KitHeader> {
    let (directory, file) = (Path::new(&directory), Path::new(&file));
    let content = match content {
        Some(content) => content.into(),
        None => library::read_beside(directory)?,
    };
    let node = node.map(|node| node.parse()).transpose().map_err(Error::from)?;
    let kit = library::Kit::of_dir(directory, node.as_ref(), content, Env::system().now())?;
    let vault = vault.inner();
    let places = vault.location().paths().iter().map(PathBuf::as_path);
    for place in places.chain([directory]) {
        refuse_inside(file, place)?;
    }
    let bytes = library::seal(vault, &kit)?;
    library::write_file(file, &bytes, replace, &Env::system())?;
    let mut header = KitHeader::from(library::describe(&bytes)?);
    if kit.channels.is_empty() {
        header.warnings.push("there is no channel in the kit".to_owned());
    }
    Ok(header)
}

/// A kit is for the day when node and vault are gone.
fn refuse_inside(file: &Path, place: &Path) -> Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new(".")).canonicalize();
    // A directory that is not there can't be written to, and that is told then.
    let (Ok(parent), Ok(place)) = (parent, place.canonicalize()) else { return Ok(()) };
    match parent.starts_with(&place) {
        false => Ok(()),
        true => Err(LibraryError::input(format!("the kit would be lost with {}", place.display()))
            .with_remedy("write it elsewhere, and keep it on another machine")
            .with_entry(file.display().to_string())
            .into()),
    }
}

/// What the kit in a file tells without a key.
///
/// # Errors
/// Not found where there is no such file; corrupt where a byte is not what was written.
#[uniffi::export]
pub fn show_kit(file: String) -> Result<KitHeader> {
    let bytes = library::read_file(Path::new(&file))?;
    let header = library::describe(&bytes).map_err(|error| error.with_entry(file.as_str()))?;
    Ok(header.into())
}

/// Opens the kit in a file; no vault is needed.
///
/// # Errors
/// Denied where `key` opened no slot of the vault when the kit was sealed; else those of `show_kit`.
#[uniffi::export]
pub fn open_kit(file: String, key: Arc<Key>) -> Result<Kit> {
    let bytes = library::read_file(Path::new(&file))?;
    let kit =
        library::open(&bytes, key.secret()).map_err(|error| error.with_entry(file.as_str()))?;
    Ok(kit.into())
}
