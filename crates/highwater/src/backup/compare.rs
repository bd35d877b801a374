//! What a new snapshot is compared with before it is committed: the snapshot before, and the highest
//! marks that the vault has seen of the node.

use std::collections::BTreeMap;

use crate::ids::RelPath;
use crate::vault::shrink::{self, Earlier};
use crate::vault::{Manifest, NodeRecord};

use super::{Made, Task};

/// How the node stood in the vault when the backup began.
pub(super) struct Before {
    /// The newest visible snapshot, whether its units are used or not.
    earlier: Option<Earlier>,
    marks: BTreeMap<String, u64>,
}

impl Before {
    pub(super) fn of(newest: Option<&Manifest>, record: &NodeRecord) -> Before {
        let earlier = newest.map(|newest| Earlier::of(newest, record));
        Before { earlier, marks: record.marks.clone() }
    }

    /// Names in the manifest what the new snapshot lacks, and warns of that and of marks that went back.
    pub(super) fn settle(&self, task: &Task<'_>, mut made: Made) -> Made {
        let manifest = &mut made.manifest;
        if let Some(earlier) = &self.earlier {
            manifest.shrunk = earlier.losses(manifest, |part| is_left_out(task, manifest, part));
        }
        let shrunk = shrink::sentence(&manifest.node, manifest.snapshot, &manifest.shrunk);
        let marks = manifest.marks.iter().filter_map(|(name, mark)| {
            let highest = self.marks.get(name).filter(|highest| **highest > mark.value)?;
            Some(format!(
                "the mark `{name}` is {}, below {highest}, the highest that the vault has seen of {}",
                mark.value, manifest.node
            ))
        });
        let told: Vec<String> = shrunk.into_iter().chain(marks).collect();
        made.warnings.extend(told);
        made
    }
}

/// Whether a part that the new snapshot lacks still stands in the node directory, where globs leave
/// something out.
fn is_left_out(task: &Task<'_>, manifest: &Manifest, part: &str) -> bool {
    let Ok(path) = part.parse::<RelPath>() else { return false };
    !task.options.discover.exclude.is_empty()
        && !manifest.entries().any(|entry| entry.path == path)
        && matches!(task.layout.held().at(&path).stat(), Ok(Some(_)))
}
