//! Where a vault is, with what its object store needs.

use std::collections::HashMap;
use std::ffi::OsString;

use highwater::vault::Location;
use highwater::{Error, Result};

/// How variables begin that speak of object stores.
const PREFIXES: &[&str] = &["AWS_", "GOOGLE_", "AZURE_"];

/// The location, with these settings for its store; without any, with those of the environment.
pub(crate) fn of(location: &str, settings: Option<HashMap<String, String>>) -> Result<Location> {
    let location: Location = location.parse()?;
    match settings {
        Some(settings) => location.with_settings(settings.into_iter().collect()),
        None => of_environment(location, std::env::vars_os()),
    }
}

/// What the store's client takes of these variables. An empty one counts as none.
fn of_environment(
    location: Location,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Location> {
    let taken = variables.filter_map(|(variable, value)| {
        let variable = variable.into_string().ok()?;
        let name = variable.to_ascii_lowercase();
        let speaks = PREFIXES.iter().any(|prefix| variable.starts_with(prefix));
        (speaks && !value.is_empty() && location.takes_setting(&name))
            .then_some((variable, name, value))
    });
    let settings = taken.map(|(variable, name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(Error::input(format!("the variable {variable} is not UTF-8"))),
    });
    let settings = settings.collect::<Result<_>>()?;
    location.with_settings(settings)
}
