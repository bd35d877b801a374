//! `vss history`: what a store was, and the way back.

use highwater::Result;
use serde_json::json;

use crate::answer::Answer;
use crate::cli::{VssHistoryListArgs, VssHistoryRestoreArgs};
use crate::context::Context;
use crate::format;

use super::database::{self, As, told};

pub(super) async fn list(context: &Context, args: &VssHistoryListArgs) -> Result<Answer> {
    let database = database::open(context, &args.store.database, As::Administrator).await?;
    let store = database::store(&args.store);
    database::refuse_missing(&database, &store).await?;
    let policy = database.policy(&store).await.map_err(told)?;
    let commits = database.commits(&store, args.below, args.limit).await.map_err(told)?;
    database.close().await;
    let rows = commits.iter().map(|commit| {
        vec![
            commit.commit.to_string(),
            format::time(commit.time),
            commit.puts.to_string(),
            commit.deletes.to_string(),
            commit.restored.map(|restored| restored.to_string()).unwrap_or_default(),
        ]
    });
    let columns = ["COMMIT", "TIME", "PUTS", "DELETES", "BROUGHT BACK"];
    let mut human = format::table(&columns, &[0, 2, 3, 4], rows.collect());
    if policy.history.is_none() {
        human = "This store keeps no history: `vss policy` can turn it on.".to_owned();
    }
    let document = json!({
        "commits": commits, "oldest": policy.oldest, "newest": policy.commit,
        "generation": policy.generation, "kept": policy.history,
    });
    Ok(Answer::new(document, human))
}

pub(super) async fn restore(context: &Context, args: &VssHistoryRestoreArgs) -> Result<Answer> {
    let database = database::open(context, &args.store.database, As::Administrator).await?;
    let store = database::store(&args.store);
    database::refuse_missing(&database, &store).await?;
    let done = database.restore(&store, args.commit).await.map_err(told);
    database.close().await;
    let done = done?;
    let human = format!(
        "Commit {} now holds what commit {} held: {} values written, {} keys deleted. Generation {} has \
         begun.",
        done.commit, args.commit, done.puts, done.deletes, done.generation
    );
    Ok(Answer::new(json!(done), human))
}
