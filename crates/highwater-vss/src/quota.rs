//! How much a user may keep. A put that leaves a user with no more than there was before is never refused: a node
//! must be able to write its state again.
//!
//! What a user keeps is counted by the database now and then, and what is put in between is added. So a
//! quota can be passed by what is under way at one moment, and what is counted can be more than there is
//! for as long as a count is good.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use highwater::Env;
use parking_lot::Mutex as Lock;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::backend::{Backend, Refusal, StoreName};
use crate::plan::{Plan, Then};

/// A quota is looked up again after that.
const QUOTA_GOOD: Duration = Duration::from_secs(10);
/// If a put does not fit a user's quota, what the user keeps is counted again after this time.
const COUNT_GOOD: Duration = Duration::from_secs(5);
/// What a user keeps is counted again after this time in any case.
const COUNT_GOOD_MAX: Duration = Duration::from_secs(10 * 60);
/// Users that are remembered.
const USERS: usize = 10_000;

/// The most that a user may keep; none: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of keys and values, old values among them.
    pub bytes: Option<u64>,
    /// Keys.
    pub keys: Option<u64>,
    /// Stores.
    pub stores: Option<u64>,
}

/// What a user keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes of keys and values, old values among them.
    pub bytes: u64,
    /// Keys.
    pub keys: u64,
    /// Stores.
    pub stores: u64,
}

/// One user of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserStats {
    /// Who.
    pub user: String,
    /// What is kept.
    pub usage: Usage,
    /// The most that may be.
    pub quota: Quota,
}

impl Quota {
    /// Whether nothing is bounded.
    pub fn is_none(&self) -> bool {
        *self == Quota::default()
    }

    /// What `usage` and `more` pass of it; a dimension that does not grow passes nothing.
    fn passed(&self, usage: Usage, more: Growth) -> Option<(&'static str, u64, u64)> {
        let rows = [
            ("bytes", self.bytes, usage.bytes, more.bytes),
            ("keys", self.keys, usage.keys, more.keys),
            ("stores", self.stores, usage.stores, more.stores),
        ];
        rows.into_iter().find_map(|(what, most, now, more)| {
            let most = most.filter(|most| more > 0 && now.saturating_add_signed(more) > *most)?;
            Some((what, most, now))
        })
    }
}

/// What a put adds to what a user keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Growth {
    bytes: i64,
    keys: i64,
    stores: i64,
}

impl Usage {
    fn add(&mut self, more: Growth) {
        self.bytes = self.bytes.saturating_add_signed(more.bytes);
        self.keys = self.keys.saturating_add_signed(more.keys);
        self.stores = self.stores.saturating_add_signed(more.stores);
    }
}

/// What a user keeps.
#[derive(Clone, Copy)]
struct Counted {
    at: Duration,
    usage: Usage,
    /// Whether what was put since was reckoned by what was there, not by its own length.
    exact: bool,
}

/// What is remembered of one user.
#[derive(Default)]
struct Known {
    /// When it was looked up.
    quota: Lock<Option<(Duration, Quota)>>,
    usage: Mutex<Option<Counted>>,
}

/// Quotas, in front of a database.
pub(crate) struct Quotas {
    env: Env,
    users: Lock<HashMap<String, Arc<Known>>>,
}

impl Quotas {
    pub(crate) fn new(env: Env) -> Quotas {
        Quotas { env, users: Lock::default() }
    }

    /// Lets a put begin that its user's quota has room for.
    ///
    /// # Errors
    /// Invalid where it has none.
    pub(crate) async fn admit(
        &self,
        backend: &Arc<dyn Backend>,
        store: &StoreName,
        plan: &Plan,
    ) -> Result<(), Refusal> {
        let known = self.known(&store.user);
        let now = self.env.monotonic();
        let old = |at: Duration, good: Duration| now.saturating_sub(at) >= good;
        let found = *known.quota.lock();
        let quota = match found {
            Some((at, quota)) if !old(at, QUOTA_GOOD) => quota,
            _ => {
                let quota = backend.quota(&store.user).await?;
                *known.quota.lock() = Some((now, quota));
                quota
            }
        };
        if quota.is_none() {
            return Ok(());
        }
        let mut usage = known.usage.lock().await;
        let counted = usage.filter(|counted| !old(counted.at, COUNT_GOOD_MAX));
        let most = at_most(plan);
        // Whether a store is new is not known without a look.
        if let Some(mut counted) = counted.filter(|_| quota.stores.is_none())
            && quota.passed(counted.usage, most).is_none()
        {
            counted.usage.add(most);
            *usage = Some(Counted { exact: false, ..counted });
            return Ok(());
        }
        let fresh = |counted: &Counted| counted.exact && !old(counted.at, COUNT_GOOD);
        let mut counted = match counted.filter(fresh) {
            Some(counted) => counted,
            None => {
                let counted = backend.usage(&store.user).await?;
                Counted { at: now, usage: counted, exact: true }
            }
        };
        let growth = growth(backend, store, plan).await?;
        let passed = quota.passed(counted.usage, growth);
        if passed.is_none() {
            counted.usage.add(growth);
        }
        *usage = Some(counted);
        match passed {
            None => Ok(()),
            Some((what, most, kept)) => Err(Refusal::Invalid(format!(
                "over the quota of this user: {most} {what}, of which {kept} are kept; delete some, or \
                 ask the operator of the server for more"
            ))),
        }
    }

    fn known(&self, user: &str) -> Arc<Known> {
        let mut users = self.users.lock();
        if let Some(known) = users.get(user) {
            return Arc::clone(known);
        }
        if users.len() >= USERS {
            users.retain(|_, known| Arc::strong_count(known) > 1);
        }
        let known = Arc::<Known>::default();
        users.insert(user.to_owned(), Arc::clone(&known));
        known
    }
}

/// What a put adds where none of its keys is there.
fn at_most(plan: &Plan) -> Growth {
    let puts = plan.effects.iter().filter(|effect| matches!(effect.then, Then::Put { .. }));
    Growth { bytes: signed(plan.bytes() as u64), keys: signed(puts.count() as u64), stores: 0 }
}

/// What a put adds, by what is there.
async fn growth(
    backend: &Arc<dyn Backend>,
    store: &StoreName,
    plan: &Plan,
) -> Result<Growth, Refusal> {
    let keys: Vec<String> = plan.effects.iter().map(|effect| effect.key.clone()).collect();
    let found = backend.sizes(store, &keys).await?;
    let mut growth = Growth { stores: i64::from(!found.is_there), ..Growth::default() };
    for (effect, size) in plan.effects.iter().zip(found.values) {
        let key = effect.key.len() as u64;
        // What is overwritten stays as an old value where history is kept.
        let kept = size.filter(|_| !found.keeps).map_or(0, |size| signed(key + size));
        match &effect.then {
            Then::Put { value, .. } => {
                growth.bytes += signed(key + value.len() as u64) - kept;
                growth.keys += i64::from(size.is_none());
            }
            Then::Delete => {
                growth.bytes -= kept;
                growth.keys -= i64::from(size.is_some());
            }
        }
    }
    Ok(growth)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
