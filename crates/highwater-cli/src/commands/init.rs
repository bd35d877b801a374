//! `init`: a new vault, its recovery words, and the sheet to print and put away.

use highwater::vault::{CreateOptions, Created, Location, Vault};
use highwater::{Error, Kind, Result};
use serde_json::json;

use crate::answer::Answer;
use crate::cli::InitArgs;
use crate::context::Context;
use crate::{format, places};

/// Where a process that nobody sits at has the words from.
const FROM_FILE: &str = " --mnemonic-file WORDS_FILE";

pub(crate) fn run(context: &Context, args: &InitArgs) -> Result<Answer> {
    let location = context.settings.location(Some(&args.vault))?;
    let source = context.settings.key(&args.key)?;
    source.refuse_inside_vault(&location)?;
    let (secret, made) = source.load_or_make()?;
    let options = CreateOptions::default().recovery(!args.no_recovery_slot).unfenced(args.unfenced);
    let created = Vault::create_with(&location, &secret, &options, context.env());
    let created = created.map_err(|error| {
        // These come before anything is stored, so that no vault can need the key just made.
        let unused = made && matches!(error.kind(), Kind::Conflict | Kind::Input);
        if unused { remove_key(source.path(), error) } else { error }
    })?;
    let mut answer = describe(context, &location, &created)?;
    answer.warnings.extend(created.vault.warnings());
    if made {
        answer.human =
            format!("Made the key file {}.\n{}", places::text(source.path()), answer.human);
    }
    Ok(answer)
}

fn remove_key(path: &std::path::Path, error: Error) -> Error {
    match std::fs::remove_file(path) {
        Ok(()) => error,
        Err(failed) => {
            error.with_remedy(format!("{} was made and is kept: {failed}", path.display()))
        }
    }
}

fn describe(context: &Context, location: &Location, created: &Created) -> Result<Answer> {
    let path = location.to_string();
    let (id, date) = (created.vault.id(), context.env().now());
    let slots = created.vault.slots()?;
    let restore = format!("highwater restore latest NODE_DIR --vault {}{FROM_FILE}", quoted(&path));
    let words = created.recovery_words.as_deref().map(String::as_str);
    let document = json!({
        "vault": path,
        "id": id,
        "created": date,
        "fenced": created.vault.is_fenced(),
        "slots": slots,
        "recovery_words": words,
        "restore_command": words.map(|_| &restore),
    });
    let Some(words) = words else {
        let answer = Answer::new(document, format!("Made the vault {id} in {path}."));
        return Ok(answer.warnings(vec![
            "the vault has a single key slot: without its key no snapshot can be opened".to_owned(),
        ]));
    };
    let sheet = [
        format!("Made the vault {id} in {path}."),
        String::new(),
        "RECOVERY SHEET: shown only this once. Print it or write it down, and keep it elsewhere.".into(),
        String::new(),
        format!("  vault    {path}"),
        format!("  id       {id}"),
        format!("  date     {}", format::time(date)),
        String::new(),
        numbered(words),
        String::new(),
        "To restore with them at a terminal, type them, with or without their numbers, when they are asked for:"
            .to_owned(),
        String::new(),
        format!("  {}", restore.replace(FROM_FILE, "")),
        String::new(),
        format!("Without a terminal, write them into WORDS_FILE, mode 0600, and add{FROM_FILE}"),
    ];
    let mut answer = Answer::new(document, sheet.join("\n"));
    answer.once = true;
    Ok(answer)
}

/// The words in rows of four, numbered, so that none is left out when they are copied.
fn numbered(words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    let rows = words.chunks(4).enumerate().map(|(row, words)| {
        let cells = words.iter().enumerate().map(|(column, word)| {
            let cell = format!("{:2} {word}", row * 4 + column + 1);
            format!("{cell:14}")
        });
        format!("  {}", cells.collect::<String>().trim_end())
    });
    rows.collect::<Vec<String>>().join("\n")
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    if text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_on_the_sheet_can_be_typed_as_it_stands() {
        assert_eq!(quoted("/srv/vault-1"), "/srv/vault-1");
        assert_eq!(quoted("/srv/my vault"), "'/srv/my vault'");
        assert_eq!(quoted("/srv/it's"), r"'/srv/it'\''s'");
    }

    #[test]
    fn every_word_has_its_number() {
        let rows = numbered("a b c d e");
        let rows: Vec<Vec<&str>> =
            rows.lines().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows, [vec!["1", "a", "2", "b", "3", "c", "4", "d"], vec!["5", "e"]]);
    }
}
