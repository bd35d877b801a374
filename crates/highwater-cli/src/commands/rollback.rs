//! `rollback`: a directory that was put aside takes its place again, is shown, or is removed.

use std::sync::Arc;

use highwater::engine::Recogniser;
use highwater::guard::Adapter;
use highwater::restore::{self, Kept, Outcome, RollbackOptions, Undo};
use highwater::{Error, Result};
use highwater_nodes::Known;
use serde_json::{Value, json};

use super::{record, recover};
use crate::answer::Answer;
use crate::cli::RollbackArgs;
use crate::context::Context;
use crate::{format, places};

pub(crate) fn run(context: &Context, args: &RollbackArgs) -> Result<Answer> {
    if args.list {
        return list(args);
    }
    if let Some(number) = args.drop {
        return drop_kept(context, args, number);
    }
    let undo = match (args.to, args.redo) {
        (Some(number), _) => Undo::To(number),
        (None, true) => Undo::Rollback,
        (None, false) => Undo::Restore,
    };
    let recogniser = Some(Arc::new(Known) as Arc<dyn Recogniser>);
    let second_belt = second_belt(args);
    let options =
        RollbackOptions::default().undo(undo).second_belt(second_belt).recogniser(recogniser);
    let outcome = restore::rollback_by(&args.node_dir, &options, &context.control)?;
    let target = places::text(&args.node_dir);
    let human = match outcome {
        Outcome::Nothing => {
            return Err(Error::not_found("there is no restore to undo")
                .with_remedy("the directory that a restore replaced is kept beside the target")
                .with_entry(target));
        }
        Outcome::Old => format!("{target} is the directory from before the restore again."),
        Outcome::New => format!("{target} is the restored directory again."),
    };
    recover::answer(&args.node_dir, outcome, human)
}

/// What marks the channels of the node that comes back; of which kind it is, one of the directories that were put
/// aside tells, or the one that stands.
fn second_belt(args: &RollbackArgs) -> Option<Arc<dyn Adapter>> {
    let kept = restore::kept(&args.node_dir).unwrap_or_default();
    let dirs = kept.iter().map(|kept| kept.path.as_path()).chain([args.node_dir.as_path()]);
    let kinds: Vec<String> = dirs.flat_map(highwater_nodes::kinds_in).collect();
    highwater_nodes::second_belt(&kinds)
}

fn list(args: &RollbackArgs) -> Result<Answer> {
    let kept = restore::kept(&args.node_dir)?;
    let target = places::text(&args.node_dir);
    let rows: Vec<Value> = kept.iter().map(document).collect();
    let json = json!({"target": target, "kept": rows});
    if kept.is_empty() {
        return Ok(Answer::new(json, format!("Nothing is kept of {target}.")));
    }
    let rows = kept
        .iter()
        .map(|kept| {
            vec![
                kept.number.to_string(),
                kept.time.map_or_else(|| "?".to_owned(), format::time),
                what(kept).to_owned(),
                kept.snapshot.as_ref().map_or_else(String::new, record::short),
                if kept.written { "yes" } else { "no" }.to_owned(),
                format::bytes(kept.bytes),
                places::text(&kept.path),
            ]
        })
        .collect();
    let header = ["NUMBER", "PUT ASIDE", "WHAT", "SNAPSHOT", "WRITTEN", "SIZE", "PATH"];
    Ok(Answer::new(json, format::table(&header, &[0, 5], rows)))
}

fn drop_kept(context: &Context, args: &RollbackArgs, number: usize) -> Result<Answer> {
    let kept = restore::drop_kept(&args.node_dir, number, &context.control)?;
    let target = places::text(&args.node_dir);
    let human = format!(
        "Removed {}, {} of {target}, {}.",
        places::text(&kept.path),
        what(&kept),
        format::bytes(kept.bytes)
    );
    Ok(Answer::new(json!({"target": target, "removed": document(&kept)}), human))
}

fn what(kept: &Kept) -> &'static str {
    match kept.restored {
        Some(true) => "the restored directory",
        Some(false) => "the directory from before a restore",
        None => "unknown",
    }
}

fn document(kept: &Kept) -> Value {
    json!({
        "number": kept.number,
        "path": places::text(&kept.path),
        "restored": kept.restored,
        "snapshot": kept.snapshot,
        "time": kept.time,
        "written": kept.written,
        "bytes": kept.bytes,
    })
}
