//! What the release of a signer asks for: where its chain is, and that its original is gone.

use std::collections::BTreeMap;

use highwater::guard::{Basis, Floor, Which};
use highwater::{Error, Result, restore};
use highwater_nodes::floor::{self, Prepared, Release, Stated};

use super::restore::original_gone;
use crate::cli::{FloorArgs, GuardReleaseArgs};
use crate::context::Context;
use crate::format;

/// Writes the floors of what `args` release.
pub(super) fn raise(context: &Context, args: &GuardReleaseArgs, which: &Which) -> Result<Prepared> {
    let (stated, why) = stated(&args.floor)?;
    let by = context.who();
    let release = Release {
        which,
        stated: &stated,
        reason: why.unwrap_or(&args.reason).trim(),
        by: &by,
        original_gone: original_gone(context, args.floor.original_gone.as_deref())?,
        in_place: &|| restore::took_its_place(&args.node_dir),
    };
    floor::raise(&args.node_dir, &release, &context.control)
}

/// The numbers that were given, and why they are these, where they are not the chain's own.
fn stated(args: &FloorArgs) -> Result<(Stated, Option<&str>)> {
    let mut numbers = BTreeMap::new();
    for (name, value) in &args.floor {
        if numbers.insert(name.clone(), *value).is_some() {
            return Err(Error::input(format!("the floor `{name}` is stated twice")));
        }
    }
    let (basis, why) = match (&args.new_chain, &args.accept_floor) {
        (Some(why), _) => (Basis::NewChain, Some(why.as_str())),
        (None, Some(why)) => (Basis::Accepted, Some(why.as_str())),
        (None, None) => (Basis::Latest, None),
    };
    if why.is_some_and(|why| why.trim().is_empty()) {
        return Err(Error::input("the reason for the floor is empty"));
    }
    Ok((Stated { numbers, basis }, why))
}

/// A floor that was written.
pub(super) fn line(floor: &Floor) -> String {
    let basis = match floor.basis {
        Basis::Latest => "by the chain's latest height",
        Basis::Accepted => "accepted as it is",
        Basis::NewChain => "for a chain that was started anew",
        Basis::Seen => "raised at the restore to what backups have seen",
    };
    let number = |numbers: &BTreeMap<String, u64>, name: &str| {
        numbers.get(name).map_or_else(|| "none".to_owned(), u64::to_string)
    };
    let mut names: Vec<&String> = floor.from.keys().chain(floor.to.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let moves: Vec<String> = names
        .iter()
        .map(|name| format!("{name} {} to {}", number(&floor.from, name), number(&floor.to, name)))
        .collect();
    format!(
        "Floor of {}, {basis}: {}, by {}, {}: {}",
        floor.file,
        moves.join(", "),
        floor.by,
        format::time(floor.time),
        floor.reason
    )
}
