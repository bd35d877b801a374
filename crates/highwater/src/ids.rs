//! Names, numbers and times that go through the whole library, each a type of its own.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::error::{Error, Result};
pub use crate::time::Time;

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A fresh random one.
            pub fn random(env: &Env) -> Result<$name> {
                Ok($name(env.random()?))
            }

            /// From its sixteen bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }

            /// Its sixteen bytes.
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<$name> {
                let mut bytes = [0; 16];
                let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                if !lower || hex::decode_to_slice(text, &mut bytes).is_err() {
                    return Err(Error::input(format!("`{text}` is not an id of 32 lower-case hex digits")));
                }
                Ok($name(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id16!(
    /// A vault.
    VaultId
);
id16!(
    /// A snapshot; random, so that two in one instant never meet.
    SnapshotId
);
id16!(
    /// A pack in a vault.
    PackId
);
id16!(
    /// A key slot of a vault.
    SlotId
);
id16!(
    /// A node, whatever its name; kept in the node directory.
    NodeUid
);
id16!(
    /// Who writes: one user's installation on one machine; kept outside the node directory.
    WriterId
);
id16!(
    /// One restore; the restored node directory carries it.
    RestoreId
);

id16!(
    /// A record in the trash of a vault.
    TrashId
);

id16!(
    /// A replicated store: from its keys, of which it tells nothing.
    StoreId
);

impl StoreId {
    /// From what a store keeps to tell its keys from others.
    pub fn of_check(check: &[u8]) -> StoreId {
        let key = blake3::derive_key("highwater 2026 id of a replicated store", check);
        let (id, _) = key.split_first_chunk().expect("32 bytes hold 16");
        StoreId(*id)
    }
}

id16!(
    /// One put of a witness's record: two copies of one process never put the same.
    PutId
);

/// A name of a node in a vault: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, not beginning with a dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<NodeName> {
        let fits = (1..=64).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !fits {
            return Err(Error::input(format!("`{text}` can't be the name of a node")).with_remedy(
                "use 1 to 64 letters, digits, dots, dashes or underscores, beginning with no dot",
            ));
        }
        Ok(NodeName(text.to_owned()))
    }
}

impl TryFrom<String> for NodeName {
    type Error = Error;

    fn try_from(text: String) -> Result<NodeName> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a node that was restored, or rolled back, is kept from acting on state that may be old.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardKind {
    /// It embeds the library: each of its channels waits for a verdict.
    Channels,
    /// Nobody can change it: the entry points of its databases are withheld.
    Databases,
}

/// How often the ownership of a node was taken over; rises only.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The number of a snapshot of one node, in the order of their commits; from 1.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// A path inside a node directory: relative, made of plain names only, any bytes but NUL.
///
/// In JSON and in messages a byte that is not part of valid UTF-8, a control character and `%`
/// stand as `%XX`. The empty path is the node directory itself.
///
/// Clones share the bytes: a node may have a million files.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Arc<[u8]>);

impl RelPath {
    /// The node directory itself.
    pub fn root() -> RelPath {
        RelPath(Arc::default())
    }

    /// From the bytes of a relative path. An absolute one, an empty component, `.` and `..` are
    /// errors, so that no path leads out of the directory.
    pub fn from_bytes(bytes: &[u8]) -> Result<RelPath> {
        if bytes.is_empty() {
            return Ok(RelPath::root());
        }
        let plain =
            |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
        if !bytes.split(|&byte| byte == b'/').all(plain) {
            return Err(
                Error::corrupt("a path would leave its directory").with_entry(encode(bytes))
            );
        }
        Ok(RelPath(bytes.into()))
    }

    /// From a relative path of the file system.
    pub fn from_path(path: &Path) -> Result<RelPath> {
        RelPath::from_bytes(path.as_os_str().as_bytes())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a relative path of the file system.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Below `base`.
    pub fn under(&self, base: &Path) -> PathBuf {
        if self.0.is_empty() { base.to_path_buf() } else { base.join(self.as_path()) }
    }

    /// This path with one more name.
    pub fn join(&self, name: &OsStr) -> RelPath {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name.as_bytes());
        RelPath(bytes.into())
    }

    /// The path without its last name; `None` for the root.
    pub fn parent(&self) -> Option<RelPath> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Some(RelPath(self.0[..end].into()))
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &OsStr {
        let start = self.0.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        OsStr::from_bytes(&self.0[start..])
    }

    /// Whether this is `base` or lies below it.
    pub fn is_within(&self, base: &RelPath) -> bool {
        base.0.is_empty()
            || self.0 == base.0
            || (self.0.starts_with(&base.0) && self.0.get(base.0.len()) == Some(&b'/'))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RelPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<RelPath> {
        RelPath::from_bytes(&decode(text)?)
    }
}

impl Serialize for RelPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RelPath, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Bytes as text: valid UTF-8 stays, other bytes, control characters and `%` become `%XX`.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '%' || character.is_control() {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    text.push_str(&format!("%{byte:02X}"));
                }
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The bytes of a text that [`encode`] made.
pub fn decode(text: &str) -> Result<Vec<u8>> {
    let wrong = || Error::input(format!("`{text}` is not percent-encoded"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).ok_or_else(wrong)?;
        bytes.extend(hex::decode(digits).map_err(|_| wrong())?);
        rest = &tail[2..];
    }
    Ok(bytes)
}
