//! `status`: how old the newest snapshot of each node is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::guard::{self, Standing};
use highwater::ids::{NodeName, Time};
use highwater::vault::{Level, SnapshotInfo};
use highwater::{Error, Kind, Result};
use serde_json::{Value, json};

use super::{guard as held, record};
use crate::answer::Answer;
use crate::cli::StatusArgs;
use crate::context::Context;
use crate::{format, places};

pub(crate) fn run(context: &Context, args: &StatusArgs) -> Result<Answer> {
    let vault = context.vault(&args.vault)?;
    let node = context.settings.node(args.node.as_ref());
    // From oldest to newest within a node: the last one stays.
    let mut newest: BTreeMap<NodeName, SnapshotInfo> = BTreeMap::new();
    vault.each_snapshot(node.as_ref(), |info| {
        // One that can't be restored protects nobody.
        if info.level > Level::Failed {
            newest.insert(info.manifest.node.clone(), info);
        }
    })?;
    if let (true, Some(node)) = (newest.is_empty(), &node) {
        return Err(Error::not_found(format!("the vault holds no snapshot of node `{node}`")));
    }
    let slots = vault.slots()?.len();
    let now = context.env().now();
    let why = |info: &SnapshotInfo| reasons(info, now, args.max_age);
    let any_stale = newest.values().any(|info| !why(info).is_empty())
        || (newest.is_empty() && args.max_age.is_some());
    let mut warnings = warnings(&newest, slots, now);
    warnings.extend(vault.warnings());
    for node in newest.keys() {
        warnings.extend(vault.node_warnings(node)?);
    }
    let directories = directories(&args.node_dir)?;
    for (dir, standing) in &directories {
        let quarantined = standing.as_ref().map_or(0, Standing::quarantined);
        let line = held::line(dir, quarantined, standing.as_ref().map(|standing| standing.kind));
        warnings.extend(line.map(|line| format!("{}: {line}", places::text(dir))));
    }
    let document = json!({
        "nodes": newest.values().map(|info| document(info, now, &why(info))).collect::<Value>(),
        "slots": slots,
        "directories": directories.iter().map(directory_document).collect::<Value>(),
        "warnings": warnings,
    });
    let rows = newest.values().map(|info| row(info, now, &why(info))).collect();
    let human = if newest.is_empty() {
        String::new()
    } else {
        format::table(&["NODE", "NEWEST", "TIME", "AGE", "LEVEL", ""], &[3], rows)
    };
    let failed = any_stale.then_some(Kind::Stale);
    Ok(Answer::new(document, human).warnings(warnings).failed(failed))
}

/// What of each node directory is quarantined.
fn directories(dirs: &[PathBuf]) -> Result<Vec<(&Path, Option<Standing>)>> {
    let standing = |dir: &'_ PathBuf| -> Result<Option<Standing>> {
        held::refuse_missing(dir)?;
        guard::standing(dir)
    };
    dirs.iter().map(|dir| Ok((dir.as_path(), standing(dir)?))).collect()
}

fn directory_document((dir, standing): &(&Path, Option<Standing>)) -> Value {
    let quarantined = standing.as_ref().map_or(0, Standing::quarantined);
    json!({"dir": places::text(dir), "quarantined": quarantined, "standing": standing})
}

/// Why a newest snapshot does not do: `old`, `future`, `shrunk`. One of the future tells no age: a node
/// whose backups have stopped for years would look fresh.
fn reasons(info: &SnapshotInfo, now: Time, age_max: Option<Duration>) -> Vec<&'static str> {
    let time = info.manifest.time;
    let all = [
        ("old", age_max.is_some_and(|age_max| is_older(now, time, age_max))),
        ("future", age_max.is_some() && time.is_ahead_of(now)),
        ("shrunk", !info.shrunk.is_empty()),
    ];
    all.into_iter().filter(|(_, found)| *found).map(|(reason, _)| reason).collect()
}

fn is_older(now: Time, time: Time, age_max: Duration) -> bool {
    let age = i128::from(now.as_nanos()) - i128::from(time.as_nanos());
    age > i128::try_from(age_max.as_nanos()).unwrap_or(i128::MAX)
}

fn warnings(newest: &BTreeMap<NodeName, SnapshotInfo>, slots: usize, now: Time) -> Vec<String> {
    let mut warnings = Vec::new();
    if newest.is_empty() {
        warnings.push("the vault holds no snapshot".to_owned());
    }
    for (node, info) in newest {
        if info.manifest.time.is_ahead_of(now) {
            warnings.push(format!(
                "the newest snapshot of `{node}` is dated in the future, {}, so its age is unknown: a clock was wrong then or is wrong now; correct it and back up again",
                info.manifest.time
            ));
        }
        warnings.extend(info.shrunk_warning());
    }
    if slots == 1 {
        warnings.push(
            "the vault has a single key slot: add another one with `highwater key add`".to_owned(),
        );
    }
    record::with_ways_out(warnings)
}

fn document(info: &SnapshotInfo, now: Time, reasons: &[&str]) -> Value {
    let manifest = &info.manifest;
    let known = !manifest.time.is_ahead_of(now);
    json!({
        "node": manifest.node,
        "newest": manifest.snapshot,
        "time": manifest.time,
        "age_seconds": known.then(|| now.seconds_since(manifest.time)),
        "level": info.level,
        "stale": !reasons.is_empty(),
        "reasons": reasons,
        "shrunk": info.shrunk,
        "marks": record::marks(&manifest.marks),
        "channels": record::channels(&manifest.marks).len(),
    })
}

fn row(info: &SnapshotInfo, now: Time, reasons: &[&str]) -> Vec<String> {
    let manifest = &info.manifest;
    let age = match manifest.time.is_ahead_of(now) {
        true => "not known".to_owned(),
        false => format::age(now.seconds_since(manifest.time)),
    };
    let stale = match reasons.is_empty() {
        true => String::new(),
        false => format!("STALE: {}", reasons.join(", ")),
    };
    vec![
        manifest.node.to_string(),
        record::short(&manifest.snapshot),
        format::time(manifest.time),
        age,
        record::word(&info.level),
        stale,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_measured_to_the_nanosecond_and_the_future_is_not_old() {
        let at = Time::from_nanos;
        let limit = Duration::from_secs(1);
        assert!(!is_older(at(1_000_000_000), at(0), limit));
        assert!(is_older(at(1_000_000_001), at(0), limit));
        assert!(!is_older(at(0), at(5_000_000_000), limit));
        assert!(is_older(at(i64::MAX), at(i64::MIN), limit));
    }
}
