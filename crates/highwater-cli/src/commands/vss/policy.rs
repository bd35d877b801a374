//! `vss policy`: what holds for a store.

use highwater::{Error, Result};
use highwater_server::vss::{Change, Keep, Policy};
use serde_json::json;

use crate::answer::Answer;
use crate::cli::VssPolicyArgs;
use crate::context::Context;
use crate::format;

use super::database::{self, As, told};

pub(super) async fn run(context: &Context, args: &VssPolicyArgs) -> Result<Answer> {
    let keep = args.keep_versions.zip(args.keep_days);
    let keep = keep.map(|(versions, days)| Some(Keep { versions, days }));
    let change = Change { fence: args.fence, history: keep.or(args.no_history.then_some(None)) };
    if change.history == Some(Some(Keep { versions: 0, days: 0 })) {
        return Err(Error::input("a history of no versions and no days keeps nothing")
            .hint("--no-history says so"));
    }
    let database = database::open(context, &args.store.database, As::Administrator).await?;
    let store = database::store(&args.store);
    let policy = match change == Change::default() {
        true => database.policy(&store).await,
        false => database.change(&store, change).await,
    };
    database.close().await;
    let policy = policy.map_err(told)?;
    Ok(Answer::new(json!(policy), human(&policy)))
}

fn human(policy: &Policy) -> String {
    let history = match policy.history {
        None => "not kept".to_owned(),
        Some(Keep { versions, days }) => format!(
            "{versions} old values of each key, and those of {days} days; commits {} to {}",
            policy.oldest, policy.commit
        ),
    };
    let fence = if policy.fence { "each put needs the head" } else { "off" };
    format::fields(&[
        ("fence", fence.to_owned()),
        ("history", history),
        ("generation", policy.generation.to_string()),
    ])
}
