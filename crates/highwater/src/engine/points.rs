//! Where replicated stores stand at the barrier, told by the node that keeps them in a database which
//! can't be asked from outside.

use std::sync::Arc;

use super::{FoundPart, Layout, ReplicaPoint};
use crate::error::{Error, Result};

/// Tells where the replicated store of one part stands: its last write, and under which ownership it was made.
pub type PointHook = Arc<
    dyn Fn() -> Result<Option<ReplicaPoint>, Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync,
>;

/// Where stores stand, by part name.
type Told = Vec<(String, ReplicaPoint)>;

/// What the hooks said before the databases were taken.
pub(super) struct Points<'a> {
    hooks: &'a [(String, PointHook)],
    before: Vec<Option<ReplicaPoint>>,
}

impl<'a> Points<'a> {
    /// Asks all hooks.
    pub(super) fn ask(hooks: &'a [(String, PointHook)], layout: &Layout) -> Result<Points<'a>> {
        for (index, (name, _)) in hooks.iter().enumerate() {
            let known = |part: &FoundPart| part.name == *name;
            if !layout.parts.iter().any(known)
                || hooks[..index].iter().any(|(earlier, _)| earlier == name)
            {
                return Err(Error::input(format!(
                    "{name} tells where a store stands, and is no part, or tells it twice"
                ))
                .with_entry(name.clone()));
            }
        }
        Ok(Points { hooks, before: answers(hooks)? })
    }

    /// Asks again: a store that has not moved stands, in what was taken meanwhile, where it said. What
    /// is said of those that have moved is a warning.
    pub(super) fn settle(self) -> Result<(Told, Vec<String>)> {
        let after = answers(self.hooks)?;
        let (mut points, mut warnings) = (Vec::new(), Vec::new());
        for (((name, _), before), after) in self.hooks.iter().zip(self.before).zip(after) {
            match (before, after) {
                (Some(before), Some(after)) if (before.epoch, before.seq) == (after.epoch, after.seq) => {
                    points.push((name.clone(), before));
                }
                (None, None) => {}
                _ => warnings.push(format!(
                    "the replicated store of {name} was written while it was captured: where it stood \
                     is not recorded; a hold hook keeps it still"
                )),
            }
        }
        Ok((points, warnings))
    }
}

fn answers(hooks: &[(String, PointHook)]) -> Result<Vec<Option<ReplicaPoint>>> {
    let ask = |(name, hook): &(String, PointHook)| {
        hook().map_err(|error| {
            Error::unavailable("the node can't tell where its replicated store stands")
                .with_entry(name.clone())
                .with_source(error)
        })
    };
    hooks.iter().map(ask).collect()
}
