//! `recover`: finishes what a crash interrupted, and says which side it ended on.

use std::path::Path;

use highwater::Result;
use highwater::guard::Standing;
use highwater::restore::{self, Outcome};
use serde_json::{Value, json};

use super::guard;
use crate::answer::Answer;
use crate::cli::TargetArgs;
use crate::context::Context;
use crate::places;

pub(crate) fn run(context: &Context, args: &TargetArgs) -> Result<Answer> {
    let outcome = restore::recover(&args.node_dir, &context.control)?;
    let target = places::text(&args.node_dir);
    let human = match outcome {
        Outcome::Nothing => format!("Nothing was interrupted in {target}."),
        Outcome::Old => format!("{target} is the directory as it was before the restore."),
        Outcome::New => format!("{target} is the restored directory."),
    };
    answer(&args.node_dir, outcome, human)
}

/// Which directory stands at the target, and what of it is quarantined.
pub(super) fn answer(target: &Path, outcome: Outcome, human: String) -> Result<Answer> {
    let standing = highwater::guard::standing(target)?;
    let quarantined = standing.as_ref().map_or(0, Standing::quarantined);
    let mut lines = vec![human];
    lines.extend(guard::line(target, quarantined, standing.map(|standing| standing.kind)));
    Ok(Answer::new(document(target, outcome, quarantined), lines.join("\n")))
}

fn document(target: &Path, outcome: Outcome, quarantined: u64) -> Value {
    let word = match outcome {
        Outcome::Nothing => "nothing",
        Outcome::Old => "old",
        Outcome::New => "new",
    };
    json!({"target": places::text(target), "outcome": word, "quarantined": quarantined})
}
