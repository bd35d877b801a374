//! What must hold in every state, and what must come about in some, so that nothing holds for want of
//! cases.

use stateright::Property;

use super::state::{REWRITING, SNAPSHOTS, has, manifest, manifests_of};
use super::steps::Vault;
use super::writer::Writing;

/// What a backup or a return was answered with success for is whole, unless somebody has forgotten it since.
pub const PROMISED: &str = "what was promised is whole";
/// Whoever looks for a snapshot finds it whole.
pub const VISIBLE: &str = "what is visible is whole";
/// A restore that takes less than two days finds all that it needs.
pub const RESTORED: &str = "a restore finds its packs";
/// What somebody wants forgotten is seen by nobody.
pub const FORGOTTEN: &str = "what was forgotten does not come back by itself";
/// Whatever happens, a prune removes all that nobody needs.
pub const CLEANED: &str = "a prune cleans up after all";

/// A backup builds on another snapshot, and is committed.
pub const BUILT: &str = "a snapshot is built on another one";
/// The parent of a snapshot was deleted, and its packs stay.
pub const PARENT_GONE: &str = "a parent is deleted, its pack stays";
/// A pack was deleted beside a snapshot that stays.
pub const PACK_GONE: &str = "a pack is deleted beside a snapshot";
/// A backup finds its intent gone, and its snapshot stays.
pub const TAKEN_FOR_DEAD: &str = "a backup is taken for dead";
/// A manifest was taken back.
pub const TAKEN_BACK: &str = "a manifest is taken back";
/// A snapshot was replaced.
pub const REPLACED: &str = "a generation is replaced and deleted";
/// Who brings a snapshot back finds it claimed.
pub const LIFTED: &str = "somebody brings back what a prune claims";

/// Those that a configuration asks for.
pub(super) fn all(model: &Vault) -> Vec<Property<Vault>> {
    let setup = &model.setup;
    let mut all = vec![
        Property::<Vault>::always(PROMISED, |_, state| {
            (0..SNAPSHOTS).all(|it| !has(state.promised, it) || state.store.is_kept(it))
        }),
        Property::<Vault>::always(CLEANED, |model, state| model.can_be_cleaned(state)),
    ];
    if setup.strict || (!setup.sleeps_at_commit && !setup.loses_answers) {
        all.push(Property::<Vault>::always(VISIBLE, |model, state| {
            let visible = model.visible(state);
            (0..SNAPSHOTS).all(|it| !has(visible, it) || state.store.is_whole(it))
        }));
        if !setup.undoes {
            all.push(Property::<Vault>::always(FORGOTTEN, |model, state| {
                model.visible(state) & state.unwanted == 0
            }));
        }
    }
    if setup.restores {
        all.push(Property::<Vault>::always(RESTORED, |_, state| {
            state.restore.is_none_or(|restore| {
                state.store.content[restore.manifest] & !state.store.packs == 0
            })
        }));
    }
    all.extend(reached());
    all
}

fn reached() -> [Property<Vault>; 7] {
    [
        Property::<Vault>::sometimes(BUILT, |_, state| {
            has(state.promised, 1) && has(state.store.content[manifest(1, 0)], 0)
        }),
        Property::<Vault>::sometimes(PARENT_GONE, |_, state| {
            state.promised & 0b110 != 0
                && state.store.manifests & manifests_of(0) == 0
                && has(state.store.packs, 0)
        }),
        Property::<Vault>::sometimes(PACK_GONE, |_, state| {
            state.promised & 0b110 != 0 && !has(state.store.packs, 0)
        }),
        Property::<Vault>::sometimes(TAKEN_FOR_DEAD, |_, state| {
            state.writers.iter().any(|writer| writer.next == Writing::SeeClaims)
        }),
        Property::<Vault>::sometimes(TAKEN_BACK, |_, state| {
            state.writers.iter().any(|writer| writer.next == Writing::TakeBack)
        }),
        Property::<Vault>::sometimes(REPLACED, |_, state| {
            has(state.store.manifests, manifest(0, 1))
                && !has(state.store.manifests, manifest(0, 0))
                && !has(state.store.packs, 0)
                && state.writers[REWRITING].next == Writing::Ended
        }),
        Property::<Vault>::sometimes(LIFTED, |_, state| {
            state.undo.is_some_and(|undo| undo.next == super::undo::Undoing::PutBack)
        }),
    ]
}
