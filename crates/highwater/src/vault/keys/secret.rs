//! The files that secrets come from, and fresh secrets from the operating system.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use bip39::{Language, Mnemonic};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize as _, Zeroizing};

use super::SlotKind;
use crate::error::{Error, Result};

const KEY_DIGITS: usize = 64;
const SECRET_LEN_MAX: u64 = 64 << 10;

/// What opens a key slot.
#[derive(Clone)]
pub enum Secret {
    /// The 32 bytes of a key file.
    Key(Zeroizing<[u8; 32]>),
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// The words of a BIP-39 mnemonic, normalised.
    Mnemonic(Zeroizing<String>),
}

impl Secret {
    /// From a key file: 64 hexadecimal digits and at most one newline, readable by its owner only.
    ///
    /// Not found where there is none, denied where others may read it, input where it is malformed.
    pub fn from_key_file(path: &Path) -> Result<Secret> {
        let bytes = read(path)?;
        let digits = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let mut key = Zeroizing::new([0; 32]);
        if digits.len() != KEY_DIGITS || hex::decode_to_slice(digits, &mut *key).is_err() {
            return Err(Error::input("the key file is not 64 hexadecimal digits and a newline")
                .with_entry(path.display().to_string())
                .with_remedy("give the file that `init` made, unchanged"));
        }
        Ok(Secret::Key(key))
    }

    /// Makes a key file with a fresh key; conflict where there is one already. It appears under its
    /// name only when it is complete and durable.
    pub fn create_key_file(path: &Path) -> Result<Secret> {
        let key = random_bytes::<32>()?;
        let name = path.file_name().ok_or_else(|| Error::input("the key file's path has no name"));
        let name = name?.to_string_lossy().into_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let temporary = parent.join(format!(".{name}.{}", hex::encode(*random_bytes::<8>()?)));
        let failed = |error: io::Error| {
            Error::io(format!("the key file {} can't be made", path.display()), error)
                .with_entry(path.display().to_string())
        };

        let made = write_key(&temporary, &key).and_then(|()| {
            fs::hard_link(&temporary, path)?;
            Ok(())
        });
        let removed = match fs::remove_file(&temporary) {
            Err(error) if made.is_ok() => Err(error),
            _ => Ok(()),
        };
        made.and(removed).and_then(|()| File::open(parent)?.sync_all()).map_err(failed)?;
        Ok(Secret::Key(key))
    }

    /// From a passphrase file: its content without one newline at its end.
    ///
    /// Not found where there is none, denied where others may read it, input where it is empty or
    /// not UTF-8.
    pub fn from_passphrase_file(path: &Path) -> Result<Secret> {
        let text = read_text(path)?;
        let passphrase = text.strip_suffix('\n').unwrap_or(&text);
        if passphrase.is_empty() {
            return Err(Error::input("the passphrase file is empty")
                .with_entry(path.display().to_string())
                .with_remedy("write the passphrase into it"));
        }
        Secret::from_passphrase(passphrase)
    }

    /// From a passphrase, to its last blank.
    ///
    /// # Errors
    /// Input where it is empty.
    pub fn from_passphrase(passphrase: &str) -> Result<Secret> {
        if passphrase.is_empty() {
            return Err(Error::input("the passphrase is empty"));
        }
        Ok(Secret::Passphrase(Zeroizing::new(passphrase.to_owned())))
    }

    /// From a file with the words of an English BIP-39 mnemonic, in any layout.
    ///
    /// Not found where there is none, denied where others may read it, input where it is no
    /// mnemonic; the error tells a wrong word's place and never the word.
    pub fn from_mnemonic_file(path: &Path) -> Result<Secret> {
        let words = Secret::from_mnemonic(&read_text(path)?);
        words.map_err(|error| error.with_entry(path.display().to_string()))
    }

    /// From the words of an English BIP-39 mnemonic, in upper or lower case; with their numbers, as a recovery sheet
    /// has them, in any order.
    pub fn from_mnemonic(text: &str) -> Result<Secret> {
        let lower = Zeroizing::new(text.to_ascii_lowercase());
        let mut normal = Zeroizing::new(String::with_capacity(lower.len()));
        for word in in_order(&lower) {
            if !normal.is_empty() {
                normal.push(' ');
            }
            normal.push_str(word);
        }
        parse_mnemonic(&normal)?;
        Ok(Secret::Mnemonic(normal))
    }

    /// The kind of slot that it opens.
    pub fn kind(&self) -> SlotKind {
        match self {
            Secret::Key(_) => SlotKind::Key,
            Secret::Passphrase(_) => SlotKind::Passphrase,
            Secret::Mnemonic(_) => SlotKind::Mnemonic,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.kind())
    }
}

/// A fresh mnemonic of 24 words: 256 bits from the operating system.
pub(crate) fn recovery_words() -> Result<Zeroizing<String>> {
    let mnemonic = Mnemonic::from_entropy(&*random_bytes::<32>()?)
        .map_err(|error| Error::bug(format!("no mnemonic of 32 bytes: {error}")))?;
    let mut words = Zeroizing::new(String::with_capacity(24 * 9));
    for word in mnemonic.words() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    Ok(words)
}

/// The 64 bytes of a mnemonic's BIP-39 seed, without a passphrase.
pub(super) fn mnemonic_seed(words: &str) -> Result<Zeroizing<Vec<u8>>> {
    let mut seed = parse_mnemonic(words)?.to_seed_normalized("");
    let copy = Zeroizing::new(seed.to_vec());
    seed.zeroize();
    Ok(copy)
}

/// Random bytes for keys and salts, from the operating system itself.
pub(super) fn random_bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(&mut *bytes)
        .map_err(|_| Error::unavailable("the operating system gives no random bytes"))?;
    Ok(bytes)
}

/// The words of a text: by their numbers where each has one of its own, from 1 on; else as they stand.
fn in_order(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut numbered: BTreeMap<usize, &str> = BTreeMap::new();
    let mut number = None;
    for token in text.split_ascii_whitespace() {
        if let Ok(found) = token.trim_end_matches(['.', ')', ':']).parse::<usize>() {
            number = Some(found);
            continue;
        }
        words.push(token);
        if let Some(number) = number.take() {
            numbered.insert(number, token);
        }
    }
    let whole = numbered.len() == words.len() && numbered.keys().copied().eq(1..=words.len());
    if whole { numbered.into_values().collect() } else { words }
}

fn parse_mnemonic(words: &str) -> Result<Mnemonic> {
    Mnemonic::parse_in_normalized(Language::English, words).map_err(|error| match error {
        bip39::Error::BadWordCount(count) => {
            Error::input(format!("a mnemonic has 12, 15, 18, 21 or 24 words, not {count}"))
        }
        bip39::Error::UnknownWord(index) => {
            Error::input(format!("word {} of the mnemonic is not in the list", index + 1))
                .with_remedy("compare it with the recovery sheet")
        }
        bip39::Error::InvalidChecksum => {
            Error::input("the mnemonic's checksum does not fit: a word is wrong or out of order")
                .with_remedy("compare it with the recovery sheet")
        }
        _ => Error::input("this is no mnemonic"),
    })
}

fn write_key(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let mut line = Zeroizing::new([b'\n'; KEY_DIGITS + 1]);
    hex::encode_to_slice(key, &mut line[..KEY_DIGITS]).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&*line)?;
    file.sync_all()
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let name = path.display().to_string();
    let failed = |error: io::Error| {
        Error::io(format!("{name} can't be read"), error).with_entry(name.as_str())
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::input(format!("{name} is a directory")).with_entry(name));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Error::denied(format!("{name} may be read by others than its owner"))
            .with_remedy(format!("chmod 600 {name}"))
            .with_entry(name));
    }
    // Room for all of it: a buffer that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_LEN_MAX as usize + 1));
    file.take(SECRET_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SECRET_LEN_MAX {
        return Err(Error::input(format!("{name} is too long for a secret")).with_entry(name));
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> Result<Zeroizing<String>> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Error::input(format!("{} is not UTF-8 text", path.display()))
            .with_entry(path.display().to_string())
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}
