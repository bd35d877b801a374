//! Remedies as an operator has them: the flags and commands of this program.

use std::path::Path;

use highwater::{Error, Remedy};

use crate::places;

/// The ways out of an error, each with the flag or command that does it.
pub(crate) fn hint(error: &Error) -> Option<String> {
    error.hint_with(&handle)
}

/// What of this program does it; `None` where nothing does.
fn handle(remedy: &Remedy) -> Option<String> {
    Some(match remedy {
        Remedy::Elsewhere(_) | Remedy::CheckpointHook | Remedy::BestSnapshot => return None,
        Remedy::Freeze(None) => "--freeze PID".to_owned(),
        Remedy::Freeze(Some(pid)) => format!("--freeze {pid}"),
        Remedy::KeepLink(link, target) => format!("--include {link}={}", places::text(target)),
        Remedy::NameNode(None) => "--node NAME".to_owned(),
        Remedy::NameNode(Some(node)) => format!("--node {node}"),
        Remedy::Undelete(id, _) => format!("highwater forget --undo {id}"),
        Remedy::Forget(id) => format!("highwater forget {id}"),
        Remedy::TakeOver(None) => "highwater owner take-over --reason TEXT".to_owned(),
        Remedy::TakeOver(Some(node)) => {
            format!("highwater owner take-over --node {node} --reason TEXT")
        }
        Remedy::StateFloor(names) => {
            let flags: Vec<String> = names.iter().map(|name| format!("--floor {name}=N")).collect();
            flags.join(" ")
        }
        Remedy::Recover(target) => format!("highwater recover {}", quoted(target)),
        other => return fixed(other).map(str::to_owned),
    })
}

/// The same of a remedy that has no data.
fn fixed(remedy: &Remedy) -> Option<&'static str> {
    Some(match remedy {
        Remedy::NoFreeze => "without --freeze",
        Remedy::NoBarrier => "--no-barrier",
        Remedy::Exclude => "--exclude GLOB",
        Remedy::LongerPause => "--max-pause",
        Remedy::LongerBlock => "--max-block",
        Remedy::HigherRate => "--limit-rate",
        Remedy::Adopt => "--adopt",
        Remedy::CreateVault => "highwater init",
        Remedy::Unfenced => "--unfenced",
        Remedy::ListSnapshots => "highwater snapshots",
        Remedy::Retention => {
            "--keep-last, --keep-hourly, --keep-daily, …, --keep-within, --keep-tag"
        }
        Remedy::Prune => "highwater prune",
        Remedy::CheckVault => "highwater check",
        Remedy::CheckData => "highwater check --read-data",
        Remedy::RestoreTest => "highwater check --restore-test",
        Remedy::ListKeys => "highwater key list",
        Remedy::RemoveKey => "highwater key remove",
        Remedy::ShowOwner => "highwater replica owner show",
        Remedy::ReleaseOwner => "highwater owner release",
        Remedy::ImportArchive => "highwater import",
        Remedy::RestoreArchive => "highwater restore --from",
        Remedy::ExportWhole => "without --since",
        Remedy::ExportSince => "--since",
        Remedy::ReplaceFile | Remedy::RestoreOver => "--force",
        Remedy::Restore => "highwater restore",
        Remedy::Rollback => "highwater rollback",
        Remedy::Redo => "highwater rollback --redo",
        Remedy::ListKept => "highwater rollback --list",
        Remedy::GuardList => "highwater guard list",
        Remedy::GuardRelease => "highwater guard release --reason TEXT",
        Remedy::GuardReleaseAll => "highwater guard release --all --reason TEXT",
        Remedy::GuardReleaseOld => "highwater guard release --although-old --reason TEXT",
        Remedy::AcceptFloor => "--accept-floor TEXT",
        Remedy::NewChain => "--new-chain TEXT",
        Remedy::OriginalGone => "--original-gone TEXT",
        Remedy::ShowKit => "highwater kit show",
        Remedy::KitContent => "--from",
        Remedy::ReplicaFlush => "highwater replica flush",
        Remedy::AcceptOlder => "highwater replica flush --accept-older-server",
        Remedy::AllowEmpty => "--allow-empty-restore",
        Remedy::ReplicaKeys => "--mnemonic-file, --store",
        Remedy::AcceptInconsistent => "--accept-inconsistent-restore",
        Remedy::AcceptClosingChannels => "--accept-closing-channels",
        Remedy::KeysOnly => "--keys-only",
        Remedy::Certificates => "--ca-file",
        Remedy::AllowHttp => "--allow-http",
        Remedy::Token => "--token-file",
        Remedy::LongerTimeout => "--timeout",
        Remedy::Elsewhere(_)
        | Remedy::CheckpointHook
        | Remedy::BestSnapshot
        | Remedy::Freeze(_)
        | Remedy::KeepLink(..)
        | Remedy::NameNode(_)
        | Remedy::StateFloor(_)
        | Remedy::Undelete(..)
        | Remedy::Forget(_)
        | Remedy::TakeOver(_)
        | Remedy::Recover(_) => return None,
    })
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = places::text(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each.
    fn all() -> Vec<Remedy> {
        use Remedy::*;
        let id = || "ab".to_owned();
        vec![
            Freeze(None),
            Freeze(Some(1)),
            NoFreeze,
            NoBarrier,
            Exclude,
            KeepLink(id(), "/a".into()),
            LongerPause,
            LongerBlock,
            HigherRate,
            NameNode(None),
            NameNode(Some(id())),
            Adopt,
            CreateVault,
            Unfenced,
            ListSnapshots,
            Undelete(id(), None),
            Forget(id()),
            Prune,
            CheckVault,
            CheckData,
            RestoreTest,
            ListKeys,
            RemoveKey,
            ShowOwner,
            TakeOver(None),
            TakeOver(Some(id())),
            ReleaseOwner,
            ImportArchive,
            RestoreArchive,
            ExportWhole,
            ExportSince,
            ReplaceFile,
            Restore,
            RestoreOver,
            Recover("/a".into()),
            Rollback,
            Redo,
            ListKept,
            GuardList,
            GuardRelease,
            GuardReleaseAll,
            GuardReleaseOld,
            StateFloor(vec!["slot".to_owned(), "epoch".to_owned()]),
            AcceptFloor,
            NewChain,
            OriginalGone,
            ShowKit,
            KitContent,
            ReplicaFlush,
            AcceptOlder,
            AllowEmpty,
            ReplicaKeys,
            AcceptInconsistent,
            AcceptClosingChannels,
            KeysOnly,
            Certificates,
            AllowHttp,
            Token,
            LongerTimeout,
        ]
    }

    /// Every command of the program, with its flags.
    fn commands(command: &clap::Command, path: &str, found: &mut Vec<(String, Vec<String>)>) {
        let flags = command.get_arguments().filter_map(|argument| argument.get_long());
        found.push((path.to_owned(), flags.map(|flag| format!("--{flag}")).collect()));
        for inner in command.get_subcommands() {
            commands(inner, &format!("{path} {}", inner.get_name()), found);
        }
    }

    #[test]
    fn every_flag_and_command_that_is_named_is_there() {
        let mut found = Vec::new();
        commands(&<crate::cli::Cli as clap::CommandFactory>::command(), "highwater", &mut found);
        for remedy in all() {
            let named = handle(&remedy).unwrap_or_else(|| panic!("{remedy:?} has no handle"));
            let words: Vec<&str> =
                named.split([' ', ',']).filter(|word| !word.is_empty()).collect();
            let is_flag = |word: &&&str| word.starts_with("--");
            let of: Vec<_> = found.iter().filter(|(path, _)| named_by(path, &named)).collect();
            for flag in words.iter().filter(is_flag) {
                let has = |flags: &[String]| flags.iter().any(|known| known == flag);
                let known = match named.starts_with("highwater") {
                    true => of.iter().any(|(_, flags)| has(flags)),
                    false => found.iter().any(|(_, flags)| has(flags)),
                };
                assert!(known, "{remedy:?}: there is no {flag} of `{named}`");
            }
            if named.starts_with("highwater") {
                assert!(of.len() > 1, "{remedy:?}: there is no `{named}`");
            }
        }
    }

    /// Whether a command is the beginning of what is named.
    fn named_by(path: &str, named: &str) -> bool {
        named.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    #[test]
    fn a_hint_names_flags_and_commands_that_run_as_they_are_pasted() {
        let error = Error::conflict("busy")
            .with_remedy("stop the node")
            .with_remedy(Remedy::Freeze(None))
            .with_remedy(Remedy::Recover("/srv/my node".into()));
        assert_eq!(
            hint(&error).as_deref(),
            Some(
                "stop the node; freeze the node for the instant that a backup takes (`--freeze PID`); or \
                 finish or undo what was interrupted (`highwater recover '/srv/my node'`)"
            )
        );
        assert_eq!(hint(&Error::interrupted()), None);
    }
}
