//! `.highwater/kit.json`: what a node writes for its kit at each channel opening, beside its own
//! state, so that `kit export` can seal it without knowing how the node stores its channels.

use std::path::Path;

use super::{KitContent, KitSource, file, parse, secret, validate};
use crate::durable;
use crate::env::Env;
use crate::error::{Error, Kind, Remedy, Result};
use crate::node::{self, OWN_DIR};
use crate::rooted::RootedPath;

/// Where it stands in the node directory. No backup captures it: after a restore the node writes it
/// anew when it starts.
pub const BESIDE: &str = ".highwater/kit.json";
/// The file in Highwater's own directory.
const FILE: &str = "kit.json";

/// Writes what belongs into the kit into the node directory: durable when it returns, in one step,
/// readable by its owner only. To be called when the node starts, and when a channel's funding is
/// known, before the funding is sent.
///
/// # Errors
/// Input where `keys` of a channel have another value than last time: they are for what never
/// changes, and what changes could be used against the node.
pub fn write_beside(node_dir: &Path, source: &dyn KitSource, env: &Env) -> Result<()> {
    let content = source.kit()?;
    validate(&content.identity, &content.channels).map_err(Error::input)?;
    match read_beside(node_dir) {
        Ok(before) => refuse_changes(&before, &content)?,
        Err(error) if error.kind() == Kind::NotFound => {}
        // The node itself knows what stood there.
        Err(error) if error.kind() == Kind::Corrupt => {}
        Err(error) => return Err(error),
    }
    let dir = RootedPath::open(node_dir)?;
    let own = node::make_own_dir(&dir)?;
    let mut text = secret::json(&content, false, 1)?;
    text.push(b'\n');
    if text.len() as u64 > file::KIT_BYTES_MAX {
        return Err(Error::input("a kit of more than 16 MiB is none").with_entry(BESIDE));
    }
    let fresh = own.join(format!(".{FILE}.{}", hex::encode(env.random::<8>()?)));
    durable::write_file_for(&fresh, &text, dir.owner()?)?;
    durable::replace(&fresh, &own.join(FILE))
}

/// What the node in `node_dir` wrote last; not found where it never did.
pub fn read_beside(node_dir: &Path) -> Result<KitContent> {
    let place = RootedPath::open(node_dir)?.join(OWN_DIR).join(FILE);
    let read = file::read_private_at(&place).and_then(|text| content_of(&text, &place.to_string()));
    read.map_err(|error| match error.kind() {
        Kind::NotFound => {
            error.with_remedy("start the node that writes it").with_remedy(Remedy::KitContent)
        }
        _ => error,
    })
}

/// The content of a kit in a file that only its owner may read. Corrupt where it is malformed.
pub fn read_content(path: &Path) -> Result<KitContent> {
    let text = file::read_private(path)?;
    content_of(&text, &path.display().to_string())
}

fn content_of(text: &[u8], name: &str) -> Result<KitContent> {
    let wrong = |why: String| Error::corrupt(format!("it is no content of a kit: {why}"));
    let content = parse(text, wrong).and_then(|content: KitContent| {
        validate(&content.identity, &content.channels).map_err(wrong)?;
        Ok(content)
    });
    content.map_err(|error| error.with_entry(name))
}

fn refuse_changes(before: &KitContent, after: &KitContent) -> Result<()> {
    for channel in &after.channels {
        let Some(known) = before.channels.iter().find(|known| known.id == channel.id) else {
            continue;
        };
        let changed = known.keys.iter().find(|(name, value)| {
            channel.keys.get(*name).is_some_and(|value_now| value_now != *value)
        });
        if let Some((name, _)) = changed {
            let what = format!(
                "`{name}` of the channel `{}` has changed: a kit has place only for what never does",
                channel.id
            );
            return Err(Error::input(what).with_entry(BESIDE));
        }
    }
    Ok(())
}
