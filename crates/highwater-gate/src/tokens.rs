//! Tokens: who may call what. The program makes them; a server that knows a file of them asks for one
//! with each call.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use highwater::ids::Time;
use highwater::{Env, Error, Result};
use http::HeaderValue;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

/// What tokens begin with, so that a scanner for leaked secrets finds them.
const PREFIX: &str = "hw_";
/// A file of tokens is no larger.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The name of a token is no longer.
const LABEL_BYTES_MAX: usize = 64;

/// What a token allows. Each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Looking: operations, snapshots, status, metrics, the stream of a snapshot that exists.
    Read,
    /// Starting and cancelling backups, checks and restore tests; a stream of a new backup.
    Backup,
    /// Releasing from quarantine.
    Admin,
}

impl Scope {
    /// Its name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Backup => "backup",
            Scope::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Scope> {
        match text {
            "read" => Ok(Scope::Read),
            "backup" => Ok(Scope::Backup),
            "admin" => Ok(Scope::Admin),
            _ => Err(Error::input(format!("`{}` is not a scope", text.escape_debug()))
                .with_remedy("use read, backup or admin")),
        }
    }
}

/// A token, without what it takes to use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    /// The name that the operator gave it; audit lines bear it.
    pub label: String,
    /// What it allows.
    pub scope: Scope,
    /// When it was made.
    pub created: Time,
    /// Of the token's text, by BLAKE3. A plain hash is enough: 32 random bytes can't be guessed, so there
    /// is nothing that a slow one would protect.
    #[serde(skip)]
    hash: blake3::Hash,
}

/// A token that was made: the only time that its text is seen.
pub struct NewToken {
    /// What is kept of it.
    pub info: TokenInfo,
    /// What the caller sends: `hw_` and 64 hex digits.
    pub text: String,
}

/// A file of tokens as TOML.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    token: Vec<Stored>,
}

/// A token in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    label: String,
    scope: Scope,
    created: Time,
    blake3: String,
}

impl From<&TokenInfo> for Stored {
    fn from(info: &TokenInfo) -> Stored {
        let TokenInfo { label, scope, created, hash } = info.clone();
        Stored { label, scope, created, blake3: hash.to_hex().to_string() }
    }
}

impl TryFrom<Stored> for TokenInfo {
    type Error = blake3::HexError;

    fn try_from(stored: Stored) -> Result<TokenInfo, blake3::HexError> {
        let Stored { label, scope, created, blake3 } = stored;
        Ok(TokenInfo { label, scope, created, hash: blake3::Hash::from_hex(blake3)? })
    }
}

/// What tells that a file is another one, or was written again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// A file of tokens, mode 0600. It holds hashes: who reads it can't call with what it says. A server
/// sees a change of the file with the next call.
pub struct Tokens {
    path: PathBuf,
    seen: RwLock<Option<(Stamp, Vec<TokenInfo>)>>,
}

impl Tokens {
    /// The tokens of a file that may be there or not.
    pub fn at(path: impl Into<PathBuf>) -> Tokens {
        Tokens { path: path.into(), seen: RwLock::default() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a token, and the file where there is none.
    ///
    /// # Errors
    /// Input where the label is empty, too long or has other than letters, digits, `.`, `_`, `-`, `@`;
    /// conflict where one of that label is there; what reading and writing the file say.
    pub fn create(&self, label: &str, scope: Scope, env: &Env) -> Result<NewToken> {
        let fits = (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
        if !fits {
            return Err(Error::input(format!("`{}` can't name a token", label.escape_debug()))
                .with_remedy(
                    "use 1 to 64 letters, digits, dots, dashes, underscores or at signs",
                ));
        }
        let mut secret = [0; 32];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut secret)
            .map_err(|_| Error::unavailable("the operating system gives no random bytes"))?;
        let text = format!("{PREFIX}{}", hex::encode(secret));
        let info =
            TokenInfo { label: label.to_owned(), scope, created: env.now(), hash: hash(&text) };
        self.change(|tokens| {
            if tokens.iter().any(|token| token.label == label) {
                return Err(Error::conflict(format!("there is a token `{label}` already"))
                    .with_remedy("revoke it first, or use another name"));
            }
            tokens.push(info.clone());
            Ok(())
        })?;
        Ok(NewToken { info, text })
    }

    /// All tokens, in the order in which they were made.
    ///
    /// # Errors
    /// Not found where there is no file; denied where others can read or write it; input where it
    /// can't be read as one.
    pub fn list(&self) -> Result<Vec<TokenInfo>> {
        Ok(self.read()?.1)
    }

    /// Takes a token out: calls with it fail from now on.
    ///
    /// # Errors
    /// Not found where there is none of that label; what reading and writing the file say.
    pub fn revoke(&self, label: &str) -> Result<()> {
        self.change(|tokens| {
            let before = tokens.len();
            tokens.retain(|token| token.label != label);
            if tokens.len() == before {
                let message = format!("there is no token `{}`", label.escape_debug());
                return Err(Error::not_found(message));
            }
            Ok(())
        })
    }

    /// The token of this text, where the file knows it.
    ///
    /// # Errors
    /// What reading the file says: a file that can't be read lets nobody in.
    pub fn find(&self, text: &str) -> Result<Option<TokenInfo>> {
        self.find_hash(&hash(text))
    }

    /// The token of this hash, where the file still knows it.
    ///
    /// # Errors
    /// As [`Tokens::find`].
    pub fn find_hash(&self, hash: &blake3::Hash) -> Result<Option<TokenInfo>> {
        self.refresh()?;
        let seen = self.seen.read();
        let mut found = None;
        // Each is compared in constant time, and all of them are.
        for token in seen.iter().flat_map(|(_, tokens)| tokens) {
            if token.hash == *hash {
                found = Some(token.clone());
            }
        }
        Ok(found)
    }

    /// Reads the file again where it has changed.
    fn refresh(&self) -> Result<()> {
        let metadata = std::fs::metadata(&self.path).map_err(|error| self.failed(error))?;
        let fresh = |seen: &Option<(Stamp, _)>| {
            seen.as_ref().is_some_and(|(stamp, _)| *stamp == Stamp::from(&metadata))
        };
        if fresh(&self.seen.read()) {
            return Ok(());
        }
        let read = self.read();
        let mut seen = self.seen.write();
        *seen = None;
        *seen = Some(read?);
        Ok(())
    }

    fn read(&self) -> Result<(Stamp, Vec<TokenInfo>)> {
        let name = self.path.display().to_string();
        let mut file = File::open(&self.path).map_err(|error| self.failed(error))?;
        let metadata = file.metadata().map_err(|error| self.failed(error))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(Error::denied("others can read or write the file of tokens")
                .with_entry(&name)
                .with_remedy(format!("chmod 600 {name}")));
        }
        let malformed = |error: &dyn std::fmt::Display| {
            Error::input(format!("the file of tokens can't be read: {error}")).with_entry(&name)
        };
        if metadata.len() > FILE_BYTES_MAX {
            return Err(malformed(&"it is too large"));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| self.failed(error))?;
        let document: Document = toml::from_str(&text).map_err(|error| malformed(&error))?;
        let tokens: Result<Vec<TokenInfo>, _> =
            document.token.into_iter().map(TokenInfo::try_from).collect();
        Ok((Stamp::from(&metadata), tokens.map_err(|error| malformed(&error))?))
    }

    /// Changes the file as a whole: a reader sees the old one or the new one.
    fn change(&self, change: impl FnOnce(&mut Vec<TokenInfo>) -> Result<()>) -> Result<()> {
        let failed = |error| self.failed(error);
        let beside = |end: &str| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        let mut private = OpenOptions::new();
        private.write(true).create(true).mode(0o600);
        // Of two programs that change it at once, the second one waits for the first.
        let lock = private.clone().truncate(false).open(beside(".lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut tokens = match self.list() {
            Err(error) if error.kind() == highwater::Kind::NotFound => Vec::new(),
            tokens => tokens?,
        };
        change(&mut tokens)?;
        let document = Document { token: tokens.iter().map(Stored::from).collect() };
        let text = toml::to_string(&document)
            .map_err(|error| Error::bug("tokens can't be written").with_source(error))?;
        let fresh = beside(".new");
        let mut file = private.truncate(true).open(&fresh).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&fresh, &self.path).map_err(failed)?;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = File::open(dir.unwrap_or(Path::new("."))).map_err(failed)?;
        dir.sync_all().map_err(failed)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io("the file of tokens", error).with_entry(self.path.display().to_string())
    }
}

impl From<&std::fs::Metadata> for Stamp {
    fn from(metadata: &std::fs::Metadata) -> Stamp {
        Stamp {
            inode: metadata.ino(),
            bytes: metadata.len(),
            // The time of the last change of anything, the mode among it.
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The token of an `Authorization` header; none where it holds something else.
pub fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn hash(text: &str) -> blake3::Hash {
    blake3::hash(text.as_bytes())
}
