//! `vss stats`: counts.

use highwater::Result;
use serde_json::json;

use crate::answer::Answer;
use crate::cli::VssStatsArgs;
use crate::context::Context;
use crate::format;

use super::database::{self, As, told};
use super::policy::shown;

pub(super) async fn run(context: &Context, args: &VssStatsArgs) -> Result<Answer> {
    let database = database::open(context, &args.database, As::Administrator).await?;
    let stats = database.stats().await.map_err(told)?;
    let stores = match args.stores {
        Some(size) => Some(database.stores(size).await.map_err(told)?),
        None => None,
    };
    let users = match args.users {
        Some(size) => Some(database.users(size).await.map_err(told)?),
        None => None,
    };
    database.close().await;
    let mut human = format::fields(&[
        ("stores", stats.stores.to_string()),
        ("keys", stats.keys.to_string()),
        ("values", format::bytes(stats.bytes)),
        ("old values", format!("{}, {}", stats.old_values, format::bytes(stats.old_bytes))),
    ]);
    let mut document = json!(stats);
    if let Some(stores) = stores {
        let rows = stores.iter().map(|store| {
            vec![
                store.user.clone(),
                store.store.clone(),
                store.keys.to_string(),
                format::bytes(store.bytes),
                store.old_values.to_string(),
                if store.policy.fence { "on" } else { "off" }.to_owned(),
            ]
        });
        let columns = ["USER", "STORE", "KEYS", "VALUES", "OLD VALUES", "FENCE"];
        human.push_str("\n\n");
        human.push_str(&format::table(&columns, &[2, 3, 4], rows.collect()));
        document["each"] = json!(stores);
    }
    if let Some(users) = users {
        let rows =
            users.iter().map(|user| vec![user.user.clone(), shown(user.quota, Some(user.usage))]);
        human.push_str("\n\n");
        human.push_str(&format::table(&["USER", "KEEPS"], &[], rows.collect()));
        document["users"] = json!(users);
    }
    Ok(Answer::new(document, human))
}
