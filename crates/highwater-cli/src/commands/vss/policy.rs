//! `vss policy`: what holds for a store, and how much a user may keep.

use std::sync::Arc;

use highwater::{Error, Result};
use highwater_vss::{Backend, Change, Keep, Policy, Quota, StoreName, Usage};
use serde_json::{Value, json};

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
            .with_remedy("--no-history says so"));
    }
    let database = database::open(context, &args.database, As::Administrator).await?;
    let done = carry_out(&database, args, change).await;
    database.close().await;
    let (document, human) = done?;
    Ok(Answer::new(document, human))
}

async fn carry_out(
    database: &Arc<dyn Backend>,
    args: &VssPolicyArgs,
    change: Change,
) -> Result<(Value, String)> {
    let Some(user) = args.user.as_deref() else {
        let quota = set_quota(database, args, None).await?;
        let text = format::fields(&[("everybody's quota", shown(quota, None))]);
        return Ok((json!({"everybody": true, "quota": quota}), text));
    };
    let usage = database.usage(user).await.map_err(told)?;
    let quota = database.quota(user).await.map_err(told)?;
    if usage.stores == 0 && !args.new {
        return Err(Error::not_found(format!(
            "the user `{}` has no store here",
            user.escape_debug()
        ))
        .with_remedy(
            "`highwater vss stats --users 100` lists them; --new is for a user that is not there yet",
        ));
    }
    let (mut document, mut rows) = (json!({}), Vec::new());
    if let Some(store) = &args.store {
        let store = StoreName { user: user.to_owned(), id: store.clone() };
        let policy = of_store(database, args, &store, change).await?;
        document = json!(policy);
        rows = policy_rows(&policy);
    }
    let quota = match asked(args) {
        None => quota,
        Some(_) => set_quota(database, args, Some(user)).await?,
    };
    document["user"] = json!(user);
    document["quota"] = json!(quota);
    document["usage"] = json!(usage);
    rows.push(("quota", shown(quota, Some(usage))));
    Ok((document, format::fields(&rows)))
}

/// Reads or changes what holds for a store.
async fn of_store(
    database: &Arc<dyn Backend>,
    args: &VssPolicyArgs,
    store: &StoreName,
    change: Change,
) -> Result<Policy> {
    if !args.new {
        database::refuse_missing(database, store).await?;
    }
    match change == Change::default() {
        true => database.policy(store).await.map_err(told),
        false => database.change(store, change).await.map_err(told),
    }
}

/// The quota that is asked for: none, to have it removed.
fn asked(args: &VssPolicyArgs) -> Option<Option<Quota>> {
    let quota = Quota { bytes: args.max_bytes, keys: args.max_keys, stores: args.max_stores };
    match args.no_quota {
        true => Some(None),
        false => Some(Some(quota)).filter(|_| !quota.is_none()),
    }
}

/// Changes a quota, where that is asked for: what is not named stays as it is. The quota then.
async fn set_quota(
    database: &Arc<dyn Backend>,
    args: &VssPolicyArgs,
    user: Option<&str>,
) -> Result<Quota> {
    let before = match user {
        Some(user) => database.quota(user).await,
        None => database.everybody().await,
    };
    let before = before.map_err(told)?;
    let quota = match asked(args) {
        None => return Ok(before),
        Some(quota) => quota.map(|quota| Quota {
            bytes: quota.bytes.or(before.bytes),
            keys: quota.keys.or(before.keys),
            stores: quota.stores.or(before.stores),
        }),
    };
    database.set_quota(user, quota).await.map_err(told)?;
    match user {
        Some(user) => database.quota(user).await.map_err(told),
        None => database.everybody().await.map_err(told),
    }
}

fn policy_rows(policy: &Policy) -> Vec<(&'static str, String)> {
    let history = match policy.history {
        None => "not kept".to_owned(),
        Some(Keep { versions, days }) => format!(
            "{versions} old values of each key, and those of {days} days; commits {} to {}",
            policy.oldest, policy.commit
        ),
    };
    let fence = if policy.fence { "each put needs the head" } else { "off" };
    vec![
        ("fence", fence.to_owned()),
        ("history", history),
        ("generation", policy.generation.to_string()),
    ]
}

/// A quota, beside what is kept of it.
pub(super) fn shown(quota: Quota, usage: Option<Usage>) -> String {
    let number = |number: u64| number.to_string();
    let rows = [
        (usage.map(|usage| usage.bytes), quota.bytes, "", format::bytes as fn(u64) -> String),
        (usage.map(|usage| usage.keys), quota.keys, " keys", number),
        (usage.map(|usage| usage.stores), quota.stores, " stores", number),
    ];
    let texts = rows.into_iter().filter_map(|(used, most, what, text)| {
        let most = most.map_or_else(|| "any".to_owned(), text);
        match used {
            Some(used) => Some(format!("{} of {most}{what}", text(used))),
            None if most == "any" => None,
            None => Some(format!("{most}{what}")),
        }
    });
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}
