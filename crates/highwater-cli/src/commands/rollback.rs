//! `rollback`: the kept directory takes its place again.

use highwater::restore::{self, Outcome};
use highwater::{Error, Result};

use super::recover;
use crate::answer::Answer;
use crate::cli::TargetArgs;
use crate::context::Context;
use crate::places;

pub(crate) fn run(context: &Context, args: &TargetArgs) -> Result<Answer> {
    let outcome = restore::rollback(&args.node_dir, &context.control)?;
    let target = places::text(&args.node_dir);
    let human = match outcome {
        Outcome::Nothing => {
            return Err(Error::not_found("there is no restore to undo")
                .hint("the directory that a restore replaced is kept beside the target")
                .entry(target));
        }
        Outcome::Old => format!("{target} is the directory from before the restore again."),
        Outcome::New => format!("{target} is still the restored directory."),
    };
    recover::answer(&args.node_dir, outcome, human)
}
