//! What can be done about an error: plain words, and what does it in this library. A program or a server
//! renders the same remedy by what its own users have: flags, commands, calls.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One way out of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// Something that is not done with Highwater: these words say all of it.
    Elsewhere(Cow<'static, str>),
    /// Stop the node for the instant that a backup takes; this process of it, where one is known.
    Freeze(Option<u32>),
    /// Capture without stopping anything: nothing runs.
    NoFreeze,
    /// Let the node make a checkpoint.
    CheckpointHook,
    /// Accept databases that have no instant in common.
    NoBarrier,
    /// Leave a file or a database out.
    Exclude,
    /// Keep this link, which leads there, although what it leads to is not captured.
    KeepLink(String, PathBuf),
    /// Allow a longer pause of the node.
    LongerPause,
    /// Allow a writer to be kept waiting for longer.
    LongerBlock,
    /// Allow more bytes a second.
    HigherRate,
    /// Say which node, or give it this name.
    NameNode(Option<String>),
    /// Let a directory go on as a node that was backed up elsewhere.
    Adopt,
    /// Make a vault.
    CreateVault,
    /// Make a vault in a store that keeps no two writers apart.
    Unfenced,
    /// See the snapshots of a vault.
    ListSnapshots,
    /// Bring a snapshot back that was given up; it can be until that time, at least.
    Undelete(String, Option<String>),
    /// Give a snapshot up.
    Forget(String),
    /// Say which snapshots stay.
    Retention,
    /// Delete what was given up long enough ago.
    Prune,
    /// Check a vault.
    CheckVault,
    /// Check a vault and all data in it.
    CheckData,
    /// Restore a snapshot to nowhere, and let the engines check it.
    RestoreTest,
    /// See the keys of a vault.
    ListKeys,
    /// Remove a key of a vault.
    RemoveKey,
    /// See who owns a node.
    ShowOwner,
    /// Take a node over from an owner who is gone for good.
    TakeOver(Option<String>),
    /// Give a node up, so that another one can own it.
    ReleaseOwner,
    /// Make a vault of an archive.
    ImportArchive,
    /// Restore from an archive.
    RestoreArchive,
    /// Export without an older snapshot to build on.
    ExportWhole,
    /// Export what is new since a snapshot that the other side has.
    ExportSince,
    /// Replace a file that is there.
    ReplaceFile,
    /// Restore the files of a snapshot.
    Restore,
    /// Exchange a directory that holds something.
    RestoreOver,
    /// Finish or undo an operation that was interrupted in this directory.
    Recover(PathBuf),
    /// Undo the last restore.
    Rollback,
    /// Undo the last rollback.
    Redo,
    /// See the directories that were put aside.
    ListKept,
    /// See what is held back, and why.
    GuardList,
    /// Let what is held back go on, for a recorded reason.
    GuardRelease,
    /// The same of all of a node.
    GuardReleaseAll,
    /// The same although it is known to be old.
    GuardReleaseOld,
    /// State the floor of a signer, by these names.
    StateFloor(Vec<String>),
    /// Let a floor lie where somebody takes responsibility for it.
    AcceptFloor,
    /// Let a signer go on a chain that was begun anew.
    NewChain,
    /// State that no other copy of a node runs or ever will.
    OriginalGone,
    /// See the keys that open a recovery kit.
    ShowKit,
    /// Give the content of a recovery kit.
    KitContent,
    /// Send what waits to the server.
    ReplicaFlush,
    /// Write over a server that was set back.
    AcceptOlder,
    /// Begin with an empty store.
    AllowEmpty,
    /// Look whether the keys, and the name of the store, are the right ones.
    ReplicaKeys,
    /// Take what a server has, although it is not of one moment.
    AcceptInconsistent,
    /// Take what was filled, although loading it may close channels.
    AcceptClosingChannels,
    /// Restore keys and values alone, without files.
    KeysOnly,
    /// Let the snapshot be chosen that fits best.
    BestSnapshot,
    /// Trust other certificates.
    Certificates,
    /// Go without TLS.
    AllowHttp,
    /// Give a token.
    Token,
    /// Allow more time.
    LongerTimeout,
}

impl Remedy {
    /// What to do, in plain words, without the name of any function, flag or command.
    pub fn words(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Remedy::Elsewhere(words) => words,
            Remedy::Freeze(None) => "freeze the node for the instant that a backup takes",
            Remedy::Undelete(id, Some(until)) => {
                let words =
                    format!("bring snapshot {id} back, which can be done at least until {until}");
                return Cow::Owned(words);
            }
            Remedy::Freeze(Some(_)) => "freeze that process",
            Remedy::StateFloor(names) => {
                let names = names.join(" and ");
                return Cow::Owned(format!(
                    "stop the original for good, look up after that where its chain is, and state the {names}"
                ));
            }
            Remedy::KeepLink(..) => "agree to keep the link alone",
            Remedy::NameNode(Some(node)) => return Cow::Owned(format!("name the node {node}")),
            Remedy::NameNode(None) => "say which node it is",
            Remedy::Undelete(id, None) => return Cow::Owned(format!("bring snapshot {id} back")),
            Remedy::Forget(id) => return Cow::Owned(format!("give snapshot {id} up")),
            Remedy::TakeOver(_) => "take the node over, if its owner is gone for good",
            Remedy::Recover(_) => "finish or undo what was interrupted",
            other => other.fixed_words(),
        })
    }

    /// The words of a remedy that has no data.
    fn fixed_words(&self) -> &'static str {
        match self {
            Remedy::NoFreeze => "back it up without a freeze: nothing of it runs",
            Remedy::CheckpointHook => "take the backup from inside the node with a checkpoint hook",
            Remedy::NoBarrier => "accept an instant for each database",
            Remedy::Exclude => "leave it out",
            Remedy::LongerPause => "allow a longer pause",
            Remedy::LongerBlock => "let a writer wait for longer",
            Remedy::HigherRate => "allow more bytes a second",
            Remedy::Adopt => "let this directory go on as that node",
            Remedy::CreateVault => "make a vault there",
            Remedy::Unfenced => {
                "make a vault for the backups of one machine alone, without takeover and witness"
            }
            Remedy::ListSnapshots => "look which snapshots there are",
            Remedy::Retention => "say which snapshots stay",
            Remedy::Prune => "let what was given up be deleted",
            Remedy::CheckVault => "check the vault",
            Remedy::CheckData => "let all data be read and checked",
            Remedy::RestoreTest => "test a restore of it",
            Remedy::ListKeys => "look which keys the vault has",
            Remedy::RemoveKey => "remove a key that nobody needs",
            Remedy::ShowOwner => "look who owns it",
            Remedy::ReleaseOwner => "let its owner give it up",
            Remedy::ImportArchive => "make a vault of it",
            Remedy::RestoreArchive => "restore from it",
            Remedy::ExportWhole => "export all of it, not what is new since another snapshot",
            Remedy::ExportSince => "export what is new since a snapshot that the other side has",
            Remedy::ReplaceFile => "let it be replaced",
            Remedy::Restore => "restore the files of a snapshot alone",
            Remedy::RestoreOver => "let it be exchanged: what stands there is kept for a rollback",
            Remedy::Rollback => "undo the restore",
            Remedy::Redo => "undo the rollback: the restored directory comes back",
            Remedy::ListKept => "look what was put aside, 1 is the newest",
            Remedy::GuardList => "look what is held back, and why",
            Remedy::GuardRelease => "release it, for a recorded reason",
            Remedy::GuardReleaseAll => "release the whole node, for a recorded reason",
            Remedy::GuardReleaseOld => {
                "release it although it is old, where it is certain that this does no harm"
            }
            Remedy::AcceptFloor => {
                "let the floor be taken as it is, for a signer that halts its chain"
            }
            Remedy::NewChain => "say so, if the chain was begun anew",
            Remedy::OriginalGone => "make sure that no other copy ever runs again, and state it",
            Remedy::ShowKit => "look which keys open the kit",
            Remedy::KitContent => "give the content that is to be sealed",
            Remedy::ReplicaFlush => "send what waits",
            Remedy::AcceptOlder => "write over a server that was set back",
            Remedy::AllowEmpty => "say that this is a new node",
            Remedy::ReplicaKeys => "is it the right mnemonic, and the right store?",
            Remedy::AcceptInconsistent => "take what is there all the same",
            Remedy::AcceptClosingChannels => "accept that these channels may be closed",
            Remedy::KeysOnly => "restore keys and values alone",
            Remedy::BestSnapshot => "name no snapshot: the one that fits best is chosen",
            Remedy::Certificates => "say which certificates are trusted",
            Remedy::AllowHttp => "allow it, where something else protects the line",
            Remedy::Token => "give a token that the server knows",
            Remedy::LongerTimeout => "allow more time",
            Remedy::Elsewhere(_)
            | Remedy::Freeze(_)
            | Remedy::KeepLink(..)
            | Remedy::NameNode(_)
            | Remedy::StateFloor(_)
            | Remedy::Undelete(..)
            | Remedy::Forget(_)
            | Remedy::TakeOver(_)
            | Remedy::Recover(_) => "",
        }
    }

    /// What of this library does it.
    pub fn function(&self) -> Option<&'static str> {
        Some(match self {
            Remedy::Elsewhere(_) => return None,
            Remedy::Freeze(_) | Remedy::NoFreeze => "CaptureOptions::freeze",
            Remedy::CheckpointHook => "CaptureOptions::hooks",
            Remedy::NoBarrier => "CaptureOptions::allow_no_barrier",
            Remedy::Exclude => "DiscoverOptions::exclude",
            Remedy::KeepLink(..) => "DiscoverOptions::include",
            Remedy::LongerPause => "Freeze::pause_max",
            Remedy::LongerBlock => "CaptureOptions::block_max",
            Remedy::HigherRate => "BackupOptions::rate_max",
            Remedy::NameNode(_) => "BackupOptions::node, Selector::node",
            Remedy::Adopt => "BackupOptions::adopt",
            Remedy::CreateVault => "Vault::create",
            Remedy::Unfenced => "CreateOptions::unfenced",
            Remedy::ListSnapshots => "Vault::snapshots",
            Remedy::Undelete(..) => "forget::undo",
            Remedy::Forget(_) => "forget::run",
            Remedy::Retention => "ForgetOptions::retention",
            Remedy::Prune => "prune::run",
            Remedy::CheckVault => "vault::check",
            Remedy::CheckData => "CheckOptions::read_data",
            Remedy::RestoreTest => "restore::test",
            Remedy::ListKeys => "Vault::slots",
            Remedy::RemoveKey => "Vault::remove_slot",
            Remedy::ShowOwner => "Vault::owner",
            Remedy::TakeOver(_) => "Vault::take_over",
            Remedy::ReleaseOwner => "Vault::release",
            Remedy::ImportArchive => "archive::import",
            Remedy::RestoreArchive => "archive::open",
            Remedy::ExportWhole | Remedy::ExportSince => "ExportOptions::since",
            Remedy::ReplaceFile => "Export::write_file",
            Remedy::Restore => "restore::run",
            Remedy::RestoreOver => "RestoreOptions::force",
            Remedy::Recover(_) => "restore::recover",
            Remedy::Rollback => "restore::rollback",
            Remedy::Redo => "RollbackOptions::undo",
            Remedy::ListKept => "restore::kept",
            Remedy::GuardList => "guard::list",
            Remedy::GuardRelease | Remedy::GuardReleaseAll => "guard::release",
            Remedy::GuardReleaseOld => "guard::release_although_old",
            Remedy::StateFloor(_) | Remedy::AcceptFloor | Remedy::NewChain => "guard::raise",
            Remedy::OriginalGone => "RestoreOptions::original_gone",
            Remedy::ShowKit => "Vault::slots",
            Remedy::KitContent => "Kit::new",
            Remedy::ReplicaFlush => "ReplicatedStore::flush",
            Remedy::AcceptOlder => "Permissions::accept_older",
            Remedy::AllowEmpty => "Permissions::allow_empty",
            Remedy::ReplicaKeys => "ReplicaKeys::from_mnemonic",
            Remedy::AcceptInconsistent => "Permissions::accept_inconsistent",
            Remedy::AcceptClosingChannels => "FillOptions::accept_closing_channels",
            Remedy::KeysOnly => "ReuniteOptions::keys_only",
            Remedy::BestSnapshot => "ReuniteOptions::snapshot",
            Remedy::Certificates => "VssBuilder::ca_file",
            Remedy::AllowHttp => "VssBuilder::allow_http",
            Remedy::Token | Remedy::LongerTimeout => return None,
        })
    }
}

impl From<&'static str> for Remedy {
    fn from(words: &'static str) -> Remedy {
        Remedy::Elsewhere(Cow::Borrowed(words))
    }
}

impl From<String> for Remedy {
    fn from(words: String) -> Remedy {
        Remedy::Elsewhere(Cow::Owned(words))
    }
}

/// The words, and what of this library does it.
impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rendered(self, self.function().map(Cow::Borrowed)))
    }
}

/// A remedy with a handle behind its words, as a user has it.
fn rendered<'a>(remedy: &'a Remedy, handle: Option<Cow<'_, str>>) -> Cow<'a, str> {
    match handle {
        Some(handle) => Cow::Owned(format!("{} (`{handle}`)", remedy.words())),
        None => remedy.words(),
    }
}

/// Several remedies as one hint, each with the handle that `handle` gives it.
pub(super) fn joined(
    remedies: &[Remedy],
    handle: &dyn Fn(&Remedy) -> Option<String>,
) -> Option<String> {
    let rendered: Vec<_> =
        remedies.iter().map(|remedy| rendered(remedy, handle(remedy).map(Cow::Owned))).collect();
    let (last, before) = rendered.split_last()?;
    Some(match before {
        [] => last.to_string(),
        before => format!("{}; or {last}", before.join("; ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_are_joined_each_with_the_callers_own_handle() {
        let remedies = [Remedy::from("stop the node"), Remedy::Freeze(None), Remedy::NoBarrier];
        let flag =
            |remedy: &Remedy| matches!(remedy, Remedy::Freeze(_)).then(|| "--freeze PID".into());
        assert_eq!(
            joined(&remedies, &flag).unwrap(),
            "stop the node; freeze the node for the instant that a backup takes (`--freeze PID`); or \
             accept an instant for each database"
        );
        assert_eq!(joined(&remedies[..1], &flag).unwrap(), "stop the node");
        assert_eq!(joined(&[], &flag), None);
        assert_eq!(
            Remedy::NoBarrier.to_string(),
            "accept an instant for each database (`CaptureOptions::allow_no_barrier`)"
        );
    }
}
