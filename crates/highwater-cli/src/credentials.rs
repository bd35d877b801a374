//! Credentials of object stores, from the variables and files that their own tools read. The library
//! reads neither: what is found here is attached to the vault's location.
//!
//! What needs no file of ours (web identity, a container's or an instance's metadata) the store's
//! client asks for by itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use highwater::vault::Location;
use highwater::{Error, Result};

use crate::places;

/// A variable is looked at where its name begins so, or is one of [`WHOLE_NAMES`].
const PREFIXES: &[&str] = &["AWS_", "GOOGLE_", "AZURE_"];
const WHOLE_NAMES: &[&str] = &["IDENTITY_ENDPOINT", "MSI_ENDPOINT", "SERVICE_ACCOUNT"];
/// What the Azure command line calls by another name than the store's client.
const ALIASES: &[(&str, &str)] = &[
    ("AZURE_STORAGE_ACCOUNT", "azure_storage_account_name"),
    ("AZURE_STORAGE_KEY", "azure_storage_account_key"),
];
/// Settings that name a file of Google's.
const GOOGLE_FILES: &[&str] = &[
    "google_application_credentials",
    "google_service_account",
    "google_service_account_path",
    "service_account",
];
/// Keys of an AWS profile that get credentials in ways that are not supported.
const OTHER_WAYS: &[&str] =
    &["credential_process", "credential_source", "source_profile", "sso_session", "sso_start_url"];

type Settings = BTreeMap<String, String>;
/// The keys of one profile.
type Profile = BTreeMap<String, String>;

/// The variables that speak of object stores, and the home directory.
#[derive(Default)]
pub(crate) struct StoreVariables {
    variables: BTreeMap<String, OsString>,
    home: Option<PathBuf>,
}

/// Values are secret.
impl fmt::Debug for StoreVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl StoreVariables {
    /// Those among all variables. An empty one counts as none.
    pub(crate) fn of(variables: &BTreeMap<OsString, OsString>) -> StoreVariables {
        let speaks = |name: &str| {
            PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || WHOLE_NAMES.contains(&name)
        };
        let chosen = variables.iter().filter_map(|(name, value)| {
            let name = name.to_str().filter(|name| speaks(name))?;
            (!value.is_empty()).then(|| (name.to_owned(), value.clone()))
        });
        let home = variables.get(OsStr::new("HOME")).map(PathBuf::from);
        StoreVariables { variables: chosen.collect(), home: home.filter(|home| home.is_absolute()) }
    }

    /// The location with the credentials and settings of its store.
    pub(crate) fn attach(&self, location: Location) -> Result<Location> {
        let mut settings = Settings::new();
        for (variable, value) in &self.variables {
            let alias = ALIASES.iter().find(|(name, _)| name == variable);
            let name = alias.map_or(variable.to_ascii_lowercase(), |(_, name)| (*name).to_owned());
            if !location.takes_setting(&name) || (alias.is_some() && settings.contains_key(&name)) {
                continue;
            }
            let value = value
                .to_str()
                .ok_or_else(|| Error::input(format!("the variable {variable} is not UTF-8")))?;
            settings.insert(name, value.to_owned());
        }
        if location.takes_setting("aws_region") {
            self.add_aws_profile(&mut settings)?;
        }
        if location.takes_setting("google_application_credentials") {
            self.add_google_default(&mut settings)?;
        }
        location.with_settings(settings)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).map(PathBuf::from)
    }

    /// What the profile of AWS's own files says, where the variables say nothing.
    fn add_aws_profile(&self, settings: &mut Settings) -> Result<()> {
        let named = self.variables.get("AWS_PROFILE");
        let name = match named {
            Some(name) => name.to_str().ok_or_else(|| Error::input("AWS_PROFILE is not UTF-8"))?,
            None => "default",
        };
        let files = [
            ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", false),
            ("AWS_CONFIG_FILE", ".aws/config", true),
        ];
        let mut profile: Option<Profile> = None;
        let mut places = Vec::new();
        for (variable, usual, is_config) in files {
            let given = self.path(variable);
            let must_exist = given.is_some();
            let usual = || self.home.as_ref().map(|home| home.join(usual));
            let Some(path) = given.or_else(usual) else { continue };
            places.push(places::text(&path));
            let Some(found) = read_profile(&path, name, is_config, must_exist)? else { continue };
            let profile = profile.get_or_insert_default();
            for (key, value) in found {
                // Credentials of the first file go before those of the second.
                profile.entry(key).or_insert(value);
            }
        }
        match profile {
            Some(profile) => merge_profile(&profile, name, settings)
                .map_err(|error| error.with_entry(places.join(", "))),
            None if named.is_some() => {
                Err(Error::not_found(format!("there is no AWS profile `{name}`"))
                    .with_entry(places.join(", "))
                    .with_remedy(
                        "set AWS_PROFILE to one of the profiles in these files, or unset it",
                    ))
            }
            None => Ok(()),
        }
    }

    /// The file that `gcloud` leaves, where no other one is named; all of them can be read.
    fn add_google_default(&self, settings: &mut Settings) -> Result<()> {
        let named: Vec<PathBuf> =
            GOOGLE_FILES.iter().filter_map(|name| settings.get(*name)).map(PathBuf::from).collect();
        if !named.is_empty() {
            return named.iter().try_for_each(|path| check_google_file(path));
        }
        let given = ["google_service_account_key", "google_bearer_token", "google_skip_signature"];
        if given.iter().any(|name| settings.contains_key(*name)) {
            return Ok(());
        }
        let usual = ".config/gcloud/application_default_credentials.json";
        let Some(path) = self.home.as_ref().map(|home| home.join(usual)) else { return Ok(()) };
        if !path.exists() {
            return Ok(());
        }
        check_google_file(&path)?;
        let text = path.to_str().ok_or_else(|| {
            Error::input("the path of the credentials is not UTF-8").with_entry(places::text(&path))
        })?;
        settings.insert("google_application_credentials".to_owned(), text.to_owned());
        Ok(())
    }
}

/// Adds what a profile says to what the variables say; credentials come from one of them alone.
fn merge_profile(profile: &Profile, name: &str, settings: &mut Settings) -> Result<()> {
    let mut add = |key: &str, setting: &str| {
        if let Some(value) = profile.get(key) {
            settings.entry(setting.to_owned()).or_insert_with(|| value.clone());
        }
    };
    add("region", "aws_region");
    add("endpoint_url", "aws_endpoint_url");
    let told = ["aws_access_key_id", "aws_secret_access_key", "aws_web_identity_token_file"];
    if told.iter().any(|key| settings.contains_key(*key)) {
        return Ok(());
    }
    let has = |key: &str| profile.contains_key(key);
    match (has("aws_access_key_id"), has("aws_secret_access_key")) {
        (true, true) => {
            for key in ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"] {
                if let Some(value) = profile.get(key) {
                    settings.insert(key.to_owned(), value.clone());
                }
            }
            return Ok(());
        }
        (false, false) => {}
        _ => {
            return Err(Error::input(format!("the AWS profile `{name}` has only half of a key"))
                .with_remedy("it needs aws_access_key_id and aws_secret_access_key"));
        }
    }
    if has("role_arn") && has("web_identity_token_file") {
        for (key, setting) in [
            ("role_arn", "aws_role_arn"),
            ("role_session_name", "aws_role_session_name"),
            ("web_identity_token_file", "aws_web_identity_token_file"),
        ] {
            if let Some(value) = profile.get(key) {
                settings.insert(setting.to_owned(), value.clone());
            }
        }
        return Ok(());
    }
    match OTHER_WAYS.iter().find(|key| has(key)) {
        Some(key) => Err(Error::input(format!(
            "the AWS profile `{name}` gets its credentials by {key}, which is not supported"
        ))
        .with_remedy("`aws configure export-credentials --format env` prints variables to set")),
        None => Ok(()),
    }
}

/// The keys of a profile; `None` where the file, or the profile in it, is not there.
fn read_profile(
    path: &Path,
    name: &str,
    is_config: bool,
    must_exist: bool,
) -> Result<Option<Profile>> {
    let entry = places::text(path);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(None);
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(Error::input("the credentials file is not UTF-8").with_entry(entry));
        }
        Err(error) => return Err(Error::io("the credentials file", error).with_entry(entry)),
    };
    parse_profile(&text, name, is_config).map_err(|line| {
        // The line may hold a secret: its number is enough.
        Error::input(format!("the credentials file has an error in line {line}"))
            .with_entry(entry)
            .with_remedy("its lines are `[profile]`, `key = value`, or begin with `#`")
    })
}

/// Reads one profile of a file in the form of AWS; the number of a line that has no such form.
fn parse_profile(text: &str, name: &str, is_config: bool) -> Result<Option<Profile>, usize> {
    let mut profile = None;
    let (mut inside, mut any_section) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        // An indented line belongs to the key above it, and none of those is used.
        let nested = any_section && line.starts_with([' ', '\t']);
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) || nested {
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            let section = rest.split_once(']').ok_or(number)?.0.trim();
            let section = match section.strip_prefix("profile ") {
                Some(section) if is_config => Some(section.trim()),
                _ => Some(section).filter(|section| !is_config || *section == "default"),
            };
            inside = section == Some(name);
            any_section = true;
            if inside {
                profile.get_or_insert_default();
            }
            continue;
        }
        let (key, value) = trimmed.split_once('=').ok_or(number)?;
        if !any_section || key.trim().is_empty() {
            return Err(number);
        }
        if let Some(profile) = profile.as_mut().filter(|_| inside)
            && !value.trim().is_empty()
        {
            let profile: &mut Profile = profile;
            profile.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    Ok(profile)
}

/// Refuses a file that is not a credentials file of Google's, and names it.
fn check_google_file(path: &Path) -> Result<()> {
    let entry = places::text(path);
    let text = std::fs::read(path)
        .map_err(|error| Error::io("the credentials file", error).with_entry(entry.as_str()))?;
    let wrong = |why: &str| {
        Error::input(format!("the credentials file is wrong: {why}"))
            .with_entry(entry.as_str())
            .with_remedy("it is the JSON file of a service account, or the one that gcloud leaves")
    };
    let document: serde_json::Value =
        serde_json::from_slice(&text).map_err(|_| wrong("it is not JSON"))?;
    match document.get("type").and_then(serde_json::Value::as_str) {
        Some("service_account" | "authorized_user") => Ok(()),
        Some(_) => Err(wrong("it is of a type that is not supported")),
        None => Err(wrong("it has no type")),
    }
}

#[cfg(test)]
mod tests;
