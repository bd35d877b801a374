//! Symbolic links: those that stay inside the node directory are kept; one that leads out of it
//! leads to something that no backup holds, so it needs the caller's word.

use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use super::sniff;
use crate::engine::DiscoverOptions;
use crate::engine::Engines;
use crate::engine::found::{NodeKind, Tree};
use crate::error::{Error, Remedy, Result};
use crate::ids::RelPath;

/// Refuses the links among `plain` that lead out, those that the caller agrees to excepted.
pub(super) fn check(
    tree: &Tree,
    plain: &[RelPath],
    options: &DiscoverOptions,
    refusals: &mut Vec<Error>,
) -> Result<()> {
    let mut agreed = Vec::new();
    for (name, target) in &options.include {
        agreed.push((name.parse::<RelPath>()?, target, false));
    }
    let inside = tree.dir.path();
    for link in plain {
        if tree.nodes.get(link).is_none_or(|node| node.kind != NodeKind::Link) {
            continue;
        }
        let target = tree.dir.at(link).read_link();
        let target = target.map_err(|errno| {
            Error::io("can't read the link", errno).with_entry(link.to_string())
        })?;
        let target = PathBuf::from(std::ffi::OsString::from_vec(target));
        let leads_to = leads_to(&link.under(&inside), &target);
        if leads_to.starts_with(&inside) {
            continue;
        }
        let mut fits = false;
        for (name, include, used) in &mut agreed {
            let same = **include == target
                || **include == leads_to
                || include.canonicalize().is_ok_and(|include| include == leads_to);
            if name == link && same {
                (*used, fits) = (true, true);
            }
        }
        if !fits {
            refusals.push(refusal(link, &target, &leads_to, &options.engines)?);
        }
    }
    match agreed.iter().find(|(_, _, used)| !used) {
        None => Ok(()),
        Some((name, target, _)) => Err(Error::input(format!(
            "{name} is no link that leads out of the node directory to {}",
            target.display()
        ))
        .with_entry(name.to_string())),
    }
}

fn refusal(link: &RelPath, target: &Path, leads_to: &Path, engines: &Engines) -> Result<Error> {
    let database = if leads_to.exists() { sniff::database_at(leads_to, engines)? } else { None };
    let what = if database.is_some() { "a database outside" } else { "a place outside" };
    let problem = format!(
        "{link} leads to {what} the node directory, {}, which the backup would not hold",
        target.display()
    );
    Ok(Error::input(problem)
        .with_entry(link.to_string())
        .with_remedy("keep it inside the node directory")
        .with_remedy(Remedy::Exclude)
        .with_remedy(Remedy::KeepLink(link.to_string(), target.to_path_buf())))
}

/// Where a link leads; one that can't be followed (dangling, or a loop) by its text.
fn leads_to(link: &Path, target: &Path) -> PathBuf {
    if let Ok(found) = link.canonicalize() {
        return found;
    }
    let mut path = link.parent().unwrap_or(link).to_path_buf();
    for component in target.components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}
