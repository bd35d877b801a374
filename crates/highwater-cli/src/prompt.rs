//! What is asked of a person at a terminal.

use std::io::IsTerminal as _;

use highwater::vault::Secret;
use highwater::{Error, Result};
use zeroize::Zeroizing;

/// A passphrase, or the words of a recovery sheet; they are not shown while they are typed. `none` is the error of a
/// process that nobody sits at.
pub(crate) fn secret(none: Error) -> Result<Secret> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(none);
    }
    let asked =
        rpassword::prompt_password("Passphrase, or recovery words, of the vault (not shown): ");
    let text = Zeroizing::new(asked.map_err(|error| Error::io("the terminal", error))?);
    match Secret::from_mnemonic(&text) {
        Ok(words) => Ok(words),
        // So many words are meant as some: why they are none is of more use than a wrong passphrase.
        Err(error) if text.split_ascii_whitespace().count() >= WORDS_MIN => Err(error),
        Err(_) => Secret::from_passphrase(&text),
    }
}

/// The fewest words of a mnemonic.
const WORDS_MIN: usize = 12;
