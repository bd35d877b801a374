//! `demo`: the whole circle on a generated node, in a temporary directory.
//!
//! It calls the commands as the program does, shows what they answer, and then compares the
//! restored node row by row with what had been written. Any difference is an error.

mod channels;
mod compare;
mod damage;
mod node;
mod rows;
pub(crate) mod writer;

use std::path::{Path, PathBuf};

use highwater::{Error, Result};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::cli::{BackupArgs, CheckArgs, InitArgs, KeyArgs, RestoreArgs, SnapshotsArgs, VaultArgs};
use crate::context::Context;
use crate::settings::Settings;
use crate::{commands, format, output};
use writer::Writer;

pub(crate) fn run(context: &Context) -> Result<Answer> {
    let scratch = tempfile::Builder::new()
        .prefix("highwater-demo-")
        .tempdir()
        .map_err(|error| Error::io("a temporary directory", error))?;
    let demo = Demo::new(context, scratch.path());
    let answer = demo.tell();
    // The node that the demo generates is worth nothing, but nobody wants it to stay around.
    let closed = scratch.close().map_err(|error| Error::io("the temporary directory", error));
    let answer = answer?;
    closed.map(|()| answer)
}

/// Where everything lies, and what the commands are called with.
struct Demo {
    context: Context,
    node: PathBuf,
    vault: PathBuf,
    key: PathBuf,
}

impl Demo {
    fn new(context: &Context, scratch: &Path) -> Demo {
        let settings = Settings::of_state_dir(scratch.join("state"));
        Demo {
            context: context.with_settings(settings),
            node: scratch.join("node"),
            vault: scratch.join("vault"),
            key: scratch.join("vault.key"),
        }
    }

    fn tell(&self) -> Result<Answer> {
        self.say("A node: channels in RocksDB, payments in SQLite, a key file, a configuration.")?;
        node::make(&self.node, self.context.env())?;
        let mut writer = Writer::start(&self.node.join(node::LEDGER))?;
        self.say("Its payments go on during the backups, in a process of their own.\n")?;

        let init = self.init()?;
        let first = self.backup("the first reads and stores everything")?;
        let acknowledged = writer.acknowledged_more()?;
        let second = self.backup("the second reads what has changed since")?;
        self.say(&format!(
            "    read {} of {}, then {} of {}\n",
            size(&first, "bytes_read"),
            size(&first, "bytes_total"),
            size(&second, "bytes_read"),
            size(&second, "bytes_total")
        ))?;
        self.snapshots()?;

        writer.kill()?;
        std::fs::remove_dir_all(&self.node).map_err(|error| Error::io("the node", error))?;
        self.say("The machine dies: the payments stop at kill -9, the disk is lost.")?;
        self.show_loss()?;
        let restore = self.restore()?;
        let compared = compare::node(&self.node, acknowledged)?;
        self.say(&format!(
            "    RocksDB: {} rows, {} of them only in its log, equal key by key to what was written",
            compared.rocksdb,
            rows::ROWS - rows::ROWS_FLUSHED
        ))?;
        self.say(&format!(
            "    SQLite:  {} payments, the first ones that were written, without a gap; {acknowledged} were \
             acknowledged when the backup began",
            compared.sqlite
        ))?;
        self.say("    files:   key file (mode 0400), configuration and link as they were\n")?;

        let damage = self.damage()?;
        let channels = channels::act(self)?;
        let document = json!({
            "ok": true,
            "rows": {"rocksdb": compared.rocksdb, "sqlite": compared.sqlite},
            "acknowledged": acknowledged,
            "init": {"id": init["id"]},
            "backups": [first, second],
            "restore": restore,
            "damage": damage,
            "channels": channels,
        });
        Ok(Answer::new(document, "All rows equal, no satoshi lost."))
    }

    fn init(&self) -> Result<Value> {
        self.command("init vault --key-file vault.key")?;
        let args = InitArgs {
            vault: self.vault_text()?,
            key: self.key_args(),
            no_recovery_slot: false,
            unfenced: false,
        };
        let answer = commands::init::run(&self.context, &args)?;
        self.say("    a vault, a key file, and recovery words that are shown this once\n")?;
        Ok(answer.json)
    }

    fn backup(&self, what: &str) -> Result<Value> {
        self.command(&format!("backup node --vault vault --key-file vault.key    # {what}"))?;
        let args = BackupArgs {
            node_dir: self.node.clone(),
            vault: self.vault_args()?,
            ..BackupArgs::default()
        };
        let answer = commands::backup::run(&self.context, &args)?;
        self.show(&answer)?;
        Ok(answer.json)
    }

    fn snapshots(&self) -> Result<()> {
        self.command("snapshots --vault vault --key-file vault.key")?;
        let args = SnapshotsArgs { command: None, vault: self.vault_args()?, node: None };
        let answer = commands::snapshots::run(&self.context, &args)?;
        self.show(&answer)
    }

    fn show_loss(&self) -> Result<()> {
        match std::fs::read_dir(&self.node) {
            Ok(_) => Err(Error::bug("the node directory is still there")),
            Err(error) => self.say(&format!("$ ls node\n    {error}\n")),
        }
    }

    fn restore(&self) -> Result<Value> {
        self.command("restore latest node --vault vault --key-file vault.key")?;
        let args = RestoreArgs {
            snapshot: "latest".into(),
            node_dir: Some(self.node.clone()),
            vault: self.vault_args()?,
            ..RestoreArgs::default()
        };
        let answer = commands::restore::run(&self.context, &args)?;
        self.show(&answer)?;
        Ok(answer.json)
    }

    /// Flips one byte in a copy of the vault; a check that does not find it is useless.
    fn damage(&self) -> Result<Value> {
        self.say("A disk rots: one byte of a copy of the vault is flipped.")?;
        let copy = self.vault.with_file_name("rotten");
        damage::copy(&self.vault, &copy)?;
        damage::flip_byte(&copy)?;
        self.command("check --read-data --vault rotten --key-file vault.key")?;
        let vault = VaultArgs { vault: Some(utf8(&copy)?), key: self.key_args() };
        let args = CheckArgs { vault, read_data: true, ..CheckArgs::default() };
        let answer = commands::check::run(&self.context, &args)?;
        self.show(&answer)?;
        let found = answer.json["errors"].as_array().is_some_and(|errors| !errors.is_empty());
        if !found || answer.json["ok"] != json!(false) {
            return Err(Error::bug("the check did not find the byte that was flipped"));
        }
        Ok(answer.json)
    }

    fn vault_args(&self) -> Result<VaultArgs> {
        Ok(VaultArgs { vault: Some(self.vault_text()?), key: self.key_args() })
    }

    fn key_args(&self) -> KeyArgs {
        KeyArgs { key_file: Some(self.key.clone()), ..KeyArgs::default() }
    }

    fn vault_text(&self) -> Result<String> {
        utf8(&self.vault)
    }

    fn command(&self, line: &str) -> Result<()> {
        self.say(&format!("$ highwater {line}"))
    }

    /// Shows an answer as the program prints it, set in.
    fn show(&self, answer: &Answer) -> Result<()> {
        let warnings = answer.warnings.iter().map(|warning| format!("warning: {warning}"));
        let lines = warnings.chain(answer.human.lines().map(str::to_owned));
        let lines: Vec<String> =
            lines.filter(|line| !line.is_empty()).map(|line| format!("    {line}")).collect();
        self.say(&format!("{}\n", lines.join("\n")))
    }

    fn say(&self, text: &str) -> Result<()> {
        self.context.progress.finish();
        self.context.control.cancel.check()?;
        if self.context.json { Ok(()) } else { output::tell(text) }
    }
}

fn size(document: &Value, field: &str) -> String {
    format::bytes(document[field].as_u64().unwrap_or(0))
}

fn utf8(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::input("the path of the temporary directory is not UTF-8"))
}
