//! What opens a vault, and what the keys of a replicated store come from.

use std::path::Path;
use std::sync::Arc;

use highwater::Secret;

use crate::error::Result;

/// What opens a vault: the content of a key file, a passphrase, or recovery words. The keys of a replicated store come
/// from one as well, but from no passphrase. It shows nothing of what it holds.
#[derive(Debug, uniffi::Object)]
pub struct Key {
    secret: Secret,
}

impl Key {
    fn of(secret: highwater::Result<Secret>) -> Result<Arc<Key>> {
        Ok(Arc::new(Key { secret: secret? }))
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }
}

#[uniffi::export]
impl Key {
    /// Makes a key file with a fresh key, readable by its owner alone.
    ///
    /// # Errors
    /// Conflict where there is a file of that name.
    #[uniffi::constructor]
    pub fn create_file(path: String) -> Result<Arc<Key>> {
        Key::of(Secret::create_key_file(Path::new(&path)))
    }

    /// From a key file.
    ///
    /// # Errors
    /// Not found where there is none; denied where others may read it; input where it is no key file.
    #[uniffi::constructor]
    pub fn from_file(path: String) -> Result<Arc<Key>> {
        Key::of(Secret::from_key_file(Path::new(&path)))
    }

    /// From a passphrase.
    ///
    /// # Errors
    /// Input where it is empty.
    #[uniffi::constructor]
    pub fn from_passphrase(passphrase: String) -> Result<Arc<Key>> {
        let passphrase = zeroize::Zeroizing::new(passphrase);
        Key::of(Secret::from_passphrase(&passphrase))
    }

    /// From the recovery words of a vault, or those of a wallet: an English BIP-39 mnemonic.
    ///
    /// # Errors
    /// Input where it is no mnemonic; the error tells the place of a wrong word and never the word.
    #[uniffi::constructor]
    pub fn from_recovery_words(words: String) -> Result<Arc<Key>> {
        let words = zeroize::Zeroizing::new(words);
        Key::of(Secret::from_mnemonic(&words))
    }
}
