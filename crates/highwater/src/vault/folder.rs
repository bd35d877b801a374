//! The folders of a vault: objects of one kind lie in each.

use std::fmt::Display;

/// The one object that is in none: what the vault is.
pub(crate) const HEADER: &str = "vault.json";

/// A folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    /// Slots that wrap the vault's key.
    Keys,
    /// What backups, imports and probes are about to put.
    Intents,
    /// Units.
    Packs,
    /// Manifests.
    Snapshots,
    /// Records of nodes.
    Nodes,
    /// Records that hide snapshots.
    Trash,
    /// What left a node.
    Witness,
}

impl Folder {
    /// Every folder. `docs/vault-format.md` has the same.
    pub(crate) const ALL: [Folder; 7] = [
        Folder::Keys,
        Folder::Intents,
        Folder::Packs,
        Folder::Snapshots,
        Folder::Nodes,
        Folder::Trash,
        Folder::Witness,
    ];

    /// Its name: the beginning of its objects' names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Folder::Keys => "keys",
            Folder::Intents => "intents",
            Folder::Packs => "packs",
            Folder::Snapshots => "snapshots",
            Folder::Nodes => "nodes",
            Folder::Trash => "trash",
            Folder::Witness => "witness",
        }
    }

    /// The folder that an object is in; `None` for one that is in none.
    pub(crate) fn of(object: &str) -> Option<Folder> {
        let (name, _) = object.split_once('/')?;
        Folder::ALL.into_iter().find(|folder| folder.name() == name)
    }

    /// The name of an object in it.
    pub(crate) fn object(self, name: impl Display) -> String {
        format!("{}/{name}", self.name())
    }

    /// What the name of an object in it goes on with; `None` for one that is in another.
    pub(crate) fn strip(self, object: &str) -> Option<&str> {
        object.strip_prefix(self.name())?.strip_prefix('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_of_a_folder_is_found_in_it_and_in_no_other() {
        for folder in Folder::ALL {
            let object = folder.object("node/1");
            assert_eq!(Folder::of(&object), Some(folder));
            let stripped: Vec<Option<&str>> =
                Folder::ALL.into_iter().map(|other| other.strip(&object)).collect();
            assert_eq!(stripped.iter().flatten().collect::<Vec<_>>(), [&"node/1"], "{object}");
        }
        for other in ["vault.json", "keys", "keysmith/1", "", "/keys/1"] {
            assert_eq!(Folder::of(other), None, "{other}");
        }
    }

    #[test]
    fn the_format_describes_each() {
        let format = include_str!("../../../../docs/vault-format.md");
        for folder in Folder::ALL {
            assert!(format.contains(&format!("`{}/", folder.name())), "{folder:?}");
        }
    }
}
