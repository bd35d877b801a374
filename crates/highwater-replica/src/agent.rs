//! A replica as the agent of its node sees it: from inside the node, and from beside it.

use std::time::Duration;

use highwater::ids::Time;

mod own;
#[cfg(test)]
mod tests;
mod watch;

pub use own::OwnReplica;
pub use watch::{ReplicaWatch, Watched};

/// From `since` to `now`; none where nothing waits, or a clock was set back.
fn lag(since: Option<Time>, now: Time) -> Duration {
    let nanos = since.map_or(0, |since| now.as_nanos().saturating_sub(since.as_nanos()));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
