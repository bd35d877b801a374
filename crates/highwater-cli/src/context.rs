//! What a command works with: settings, environment, cancellation, progress.

use std::path::Path;

use highwater::Control;
use highwater::vault::{Actor, Selector, Vault};
use highwater::{Env, Error, Result};

use crate::cli::{KeyArgs, VaultArgs};
use crate::progress::Progress;
use crate::prompt;
use crate::settings::Settings;
use crate::signals;
use crate::{confined, places};

/// What a command works with.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) control: Control,
    pub(crate) progress: Progress,
    pub(crate) json: bool,
}

impl Context {
    /// The context of the process: its signals cancel, its terminal shows progress unless it is to be `quiet`.
    pub(crate) fn new(settings: Settings, json: bool, quiet: bool) -> Result<Context> {
        let progress = Progress::new(!quiet);
        let control = Control::new(environment()?).on_event(progress.sink());
        signals::cancel_on_signals(&control.cancel)?;
        Ok(Context { settings, control, progress, json })
    }

    /// The same process with other settings.
    pub(crate) fn with_settings(&self, settings: Settings) -> Context {
        Context {
            settings,
            control: self.control.clone(),
            progress: self.progress.clone(),
            json: self.json,
        }
    }

    /// Clock, randomness and fault points.
    pub(crate) fn env(&self) -> &Env {
        &self.control.env
    }

    /// Opens the vault that flags and settings name.
    pub(crate) fn vault(&self, args: &VaultArgs) -> Result<Vault> {
        let location = self.settings.location(args.vault.as_deref())?;
        let secret = match self.settings.key(&args.key) {
            Ok(source) => source.load()?,
            Err(none) => prompt::secret(none)?,
        };
        Vault::open_with(&location, &secret, self.env())
    }

    /// The same, for a command on `node_dir`: the secret may lie neither in the vault nor in there.
    pub(crate) fn vault_for_node(&self, args: &VaultArgs, node_dir: &Path) -> Result<Vault> {
        let location = self.settings.location(args.vault.as_deref())?;
        let secret = match self.settings.key(&args.key) {
            Ok(source) => {
                source.refuse_inside_vault(&location)?;
                source.refuse_inside_node(node_dir)?;
                source.load()?
            }
            Err(none) => prompt::secret(none)?,
        };
        Vault::open_with(&location, &secret, self.env())
    }

    /// Refuses an output file in whose place this command's own secret or settings lie: without the
    /// secret the vault opens no more.
    pub(crate) fn refuse_own_files(&self, key: &KeyArgs, output: &Path) -> Result<()> {
        let secret = self.settings.key(key).ok();
        let secret =
            secret.as_ref().map(|source| (source.path(), "the secret that opens the vault"));
        let settings = self.settings.file().map(|file| (file, "the settings"));
        for (file, what) in secret.into_iter().chain(settings) {
            if places::is_inside(output, file)? {
                return Err(Error::input(format!("{} is {what}", places::text(output)))
                    .with_remedy("write to another file")
                    .with_entry(places::text(output)));
            }
        }
        Ok(())
    }

    /// Who acts on the vault.
    pub(crate) fn actor(&self) -> Result<Actor> {
        Ok(Actor { state_dir: self.settings.state_dir()?, name: self.who() })
    }

    /// Who acts, as it is recorded: `user@machine`.
    pub(crate) fn who(&self) -> String {
        let user = match self.settings.user() {
            Some(user) => user.to_owned(),
            None => rustix::process::getuid().as_raw().to_string(),
        };
        let uname = rustix::system::uname();
        let machine = uname.nodename().to_string_lossy();
        format!("{user}@{machine}")
    }

    /// The snapshot that an id, a prefix or `latest` means, among those of `node` or of all.
    pub(crate) fn selector(
        &self,
        snapshot: &str,
        node: Option<&highwater::ids::NodeName>,
    ) -> Result<Selector> {
        if snapshot.is_empty() {
            return Err(Error::input("the name of the snapshot is empty"));
        }
        let node = self.settings.node(node);
        Ok(Selector { snapshot: snapshot.to_owned(), node, ..Selector::default() })
    }
}

#[cfg(feature = "fault-points")]
fn environment() -> Result<Env> {
    Ok(crate::faults::environment()?.with_helper(confined::command()?))
}

#[cfg(not(feature = "fault-points"))]
fn environment() -> Result<Env> {
    Ok(Env::system().with_helper(confined::command()?))
}
