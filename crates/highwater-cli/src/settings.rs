//! Settings: a flag, then a `HIGHWATER_*` variable, then `highwater.toml`. An unknown variable or
//! an unknown name in the file is an error, so that no misspelt setting is silently without effect.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use highwater::ids::NodeName;
use highwater::vault::Location;
use highwater::{Error, Result};
use serde::Deserialize;

use crate::cli::KeyArgs;
use crate::credentials::StoreVariables;
use crate::keys::KeySource;

mod agent;
mod replica;
mod vss;

pub(crate) use agent::{AgentSettings, CaptureMode, NodeSettings};
pub(crate) use replica::ReplicaSettings;
pub(crate) use vss::VssSettings;

const CONFIG: &str = "HIGHWATER_CONFIG";
const KEY_FILE: &str = "HIGHWATER_KEY_FILE";
const MNEMONIC_FILE: &str = "HIGHWATER_MNEMONIC_FILE";
const NODE: &str = "HIGHWATER_NODE";
const PASSPHRASE_FILE: &str = "HIGHWATER_PASSPHRASE_FILE";
const POSTGRES: &str = "HIGHWATER_POSTGRES";
const STATE_DIR: &str = "HIGHWATER_STATE_DIR";
const VAULT: &str = "HIGHWATER_VAULT";

/// Every variable that means something.
const KNOWN: &[&str] =
    &[CONFIG, KEY_FILE, MNEMONIC_FILE, NODE, PASSPHRASE_FILE, POSTGRES, STATE_DIR, VAULT];

/// The variables that choose a fault, known only to a program that has fault points.
#[cfg(feature = "fault-points")]
const KNOWN_FAULTS: &[&str] = crate::faults::VARIABLES;
#[cfg(not(feature = "fault-points"))]
const KNOWN_FAULTS: &[&str] = &[];

/// The environment of the process, or one that a test makes up.
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_process() -> Environment {
        Environment(std::env::vars_os().collect())
    }

    fn raw(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let text = value.to_str().ok_or_else(|| Error::input(format!("{name} is not UTF-8")))?;
        Ok(Some(text.to_owned()))
    }

    /// A directory of the XDG convention: an absolute path, or below the home directory.
    fn xdg(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let given = self.path(name).filter(|path| path.is_absolute());
        let home = || self.path("HOME").filter(|path| path.is_absolute());
        given.or_else(|| home().map(|home| home.join(below_home)))
    }

    fn check_known(&self) -> Result<()> {
        for (name, value) in &self.0 {
            if !name.as_bytes().starts_with(b"HIGHWATER_") {
                continue;
            }
            let known = |all: &[&str]| all.iter().any(|known| OsStr::new(known) == name);
            let name = highwater::ids::encode(name.as_bytes());
            if !known(KNOWN) && !known(KNOWN_FAULTS) {
                return Err(Error::input(format!("the variable {name} is not a setting"))
                    .with_remedy(format!("unset it; the settings are {}", KNOWN.join(", "))));
            }
            if value.is_empty() {
                return Err(Error::input(format!("the variable {name} is empty"))
                    .with_remedy("unset it, or give it a value"));
            }
        }
        Ok(())
    }
}

/// `highwater.toml`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    vault: VaultTable,
    listen: Option<String>,
    tokens_file: Option<PathBuf>,
    audit_file: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    tls: Option<agent::TlsTable>,
    #[serde(default)]
    node: Vec<agent::NodeTable>,
    #[serde(default)]
    vss: vss::VssTable,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VaultTable {
    url: Option<String>,
    key_file: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    mnemonic_file: Option<PathBuf>,
}

/// What environment and file say; a flag goes before it.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    vault: Option<String>,
    key: Option<KeySource>,
    node: Option<NodeName>,
    state_dir: Option<PathBuf>,
    /// `user` in `user@machine`, where the environment tells one.
    user: Option<String>,
    /// What the environment says of object stores.
    stores: StoreVariables,
    /// What the file says of the agent.
    agent: AgentSettings,
    /// What environment and file say of the versioned store.
    vss: VssSettings,
    /// The file, where there is one.
    file: Option<PathBuf>,
}

impl Settings {
    /// Reads the environment, and the file that `--config`, the environment or the convention names.
    pub(crate) fn load(config: Option<&Path>, environment: &Environment) -> Result<Settings> {
        environment.check_known()?;
        let file = read_file(config, environment)?;
        let key = one_key(
            [KEY_FILE, PASSPHRASE_FILE, MNEMONIC_FILE].map(|name| environment.path(name)),
            "the environment",
        )?;
        let state_dir = match environment.path(STATE_DIR) {
            Some(dir) => Some(absolute(&dir)?),
            None => {
                environment.xdg("XDG_STATE_HOME", ".local/state").map(|dir| dir.join("highwater"))
            }
        };
        let mut vss = file.vss;
        if let Some(url) = environment.text(POSTGRES)? {
            vss = VssSettings { postgres: Some(url), data_dir: None, ..vss };
        }
        Ok(Settings {
            vss,
            vault: environment.text(VAULT)?.or(file.vault),
            key: key.or(file.key),
            node: environment.text(NODE)?.map(|text| text.parse()).transpose()?,
            state_dir,
            user: environment.raw("USER").and_then(OsStr::to_str).map(str::to_owned),
            stores: StoreVariables::of(&environment.0),
            agent: file.agent,
            file: file.path,
        })
    }

    /// Settings of a program that reads neither environment nor file.
    pub(crate) fn of_state_dir(state_dir: PathBuf) -> Settings {
        Settings { state_dir: Some(state_dir), ..Settings::default() }
    }

    /// The vault to use, with the credentials of its store.
    pub(crate) fn location(&self, flag: Option<&str>) -> Result<Location> {
        let text = flag.or(self.vault.as_deref()).ok_or_else(|| {
            Error::input("no vault was given").with_remedy(format!(
                "give --vault, set {VAULT}, or `url` under [vault] in highwater.toml"
            ))
        })?;
        if text.is_empty() {
            return Err(Error::input("the vault's path is empty"));
        }
        self.stores.attach(text.parse()?)
    }

    /// Where the secret is that opens the vault.
    pub(crate) fn key(&self, flags: &KeyArgs) -> Result<KeySource> {
        let flags = [&flags.key_file, &flags.passphrase_file, &flags.mnemonic_file];
        let flag = one_key(flags.map(Clone::clone), "the command line")?;
        flag.or_else(|| self.key.clone()).ok_or_else(|| {
            Error::input("no key was given").with_remedy(format!(
                "give --key-file, --passphrase-file or --mnemonic-file, set {KEY_FILE}, or \
                 `key_file` under [vault] in highwater.toml"
            ))
        })
    }

    /// The node to work on, if one is named.
    pub(crate) fn node(&self, flag: Option<&NodeName>) -> Option<NodeName> {
        flag.or(self.node.as_ref()).cloned()
    }

    /// What the file says of the agent.
    pub(crate) fn agent(&self) -> &AgentSettings {
        &self.agent
    }

    /// What is said of the versioned store.
    pub(crate) fn vss(&self) -> &VssSettings {
        &self.vss
    }

    /// The settings file that was read.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The user's state directory.
    pub(crate) fn state_dir(&self) -> Result<PathBuf> {
        self.state_dir.clone().ok_or_else(|| {
            Error::input("there is no home directory to keep the writer's id in")
                .with_remedy(format!("set HOME, XDG_STATE_HOME or {STATE_DIR}"))
        })
    }

    /// The user's name, where the environment tells it.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref().filter(|name| !name.is_empty())
    }
}

/// What the settings file says; its relative paths start at its own directory.
#[derive(Default)]
struct FromFile {
    vault: Option<String>,
    key: Option<KeySource>,
    agent: AgentSettings,
    vss: VssSettings,
    path: Option<PathBuf>,
}

fn read_file(config: Option<&Path>, environment: &Environment) -> Result<FromFile> {
    let named = config.map(Path::to_path_buf).or_else(|| environment.path(CONFIG));
    let usual = || {
        let dir = environment.xdg("XDG_CONFIG_HOME", ".config")?;
        Some(dir.join("highwater/highwater.toml"))
    };
    let must_exist = named.is_some();
    let Some(path) = named.or_else(usual) else { return Ok(FromFile::default()) };
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(FromFile::default());
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(Error::input("the settings file is not UTF-8").with_entry(name));
        }
        Err(error) => return Err(Error::io("the settings file", error).with_entry(name)),
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        Error::input(format!("the settings file is wrong: {}", error.to_string().trim_end()))
            .with_entry(name.as_str())
    })?;
    let path = absolute(&path)?;
    let base = path.parent().unwrap_or(Path::new("/"));
    let vault = file.vault;
    let key = one_key(
        [vault.key_file, vault.passphrase_file, vault.mnemonic_file]
            .map(|file| file.map(|file| base.join(file))),
        &name,
    )?;
    let url = vault.url.map(|url| if url.contains("://") { Ok(url) } else { below(base, &url) });
    let tables = agent::Tables {
        listen: file.listen,
        tokens_file: file.tokens_file,
        audit_file: file.audit_file,
        data_dir: file.data_dir,
        tls: file.tls,
        node: file.node,
    };
    let agent = tables.resolve(base).map_err(|error| match error.entry() {
        Some(_) => error,
        None => error.with_entry(&name),
    })?;
    let vss = file.vss.resolve(base);
    Ok(FromFile { vault: url.transpose()?, key, agent, vss, path: Some(path) })
}

fn below(base: &Path, path: &str) -> Result<String> {
    let path = base.join(path).into_os_string().into_string();
    path.map_err(|_| Error::input("the path of the settings file is not UTF-8"))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io(path.display(), error))
}

/// The one secret that is named, in the order key file, passphrase file, mnemonic file.
fn one_key(files: [Option<PathBuf>; 3], named_by: &str) -> Result<Option<KeySource>> {
    let [key, passphrase, mnemonic] = files;
    let mut sources = [
        key.map(KeySource::Key),
        passphrase.map(KeySource::Passphrase),
        mnemonic.map(KeySource::Mnemonic),
    ]
    .into_iter()
    .flatten();
    let first = sources.next();
    if sources.next().is_some() {
        return Err(Error::input(format!("{named_by} names more than one key"))
            .with_remedy("name a key file, a passphrase file or a mnemonic file"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests;
