"""Highwater: disaster recovery for nodes whose state must never go back in time.

A node keeps its truth in an embedded database. ``backup`` captures a consistent image of its directory while the node
runs, in another process, and seals it into a ``Vault``; ``restore`` brings it back in one step; ``Guard`` tells what of
a restored node is held back. Errors are variants of ``Error``, by what has to be done about them.

Every call blocks its thread, and lets other threads of Python run meanwhile.
"""

from typing import TYPE_CHECKING

from ._library.highwater import (
    Actor,
    ArchiveReport,
    BackupOptions,
    BackupReport,
    Cancel,
    Changes,
    CheckFault,
    CheckReport,
    Checkpoint,
    CreatedVault,
    Effort,
    Exchange,
    Guard,
    GuardKind,
    Held,
    HeldState,
    ImportReport,
    ImportedSnapshot,
    KeptDirectory,
    Key,
    Kind,
    Level,
    Outcome,
    Part,
    Progress,
    RestoreOptions,
    RestorePlan,
    RestoreReport,
    Snapshot,
    Standing,
    StandingCause,
    Undo,
    Vault,
    Writers,
    backup,
    create_vault_with_recovery,
    kept,
    plan_restore,
    recover,
    restore,
    rollback,
    run_restore_test,
    standard_actor,
    version,
)

if TYPE_CHECKING:
    from ._errors import CallbackError, Error
else:
    from ._library.highwater import CallbackError, Error

    # An exception says what the library says of it, and not how its fields are called.
    Error.__str__ = lambda self: self.text()
    CallbackError.__str__ = lambda self: self.reason

__version__ = version()

__all__ = [
    "Actor",
    "ArchiveReport",
    "BackupOptions",
    "BackupReport",
    "CallbackError",
    "Cancel",
    "Changes",
    "CheckFault",
    "CheckReport",
    "Checkpoint",
    "CreatedVault",
    "Effort",
    "Error",
    "Exchange",
    "Guard",
    "GuardKind",
    "Held",
    "HeldState",
    "ImportReport",
    "ImportedSnapshot",
    "KeptDirectory",
    "Key",
    "Kind",
    "Level",
    "Outcome",
    "Part",
    "Progress",
    "RestoreOptions",
    "RestorePlan",
    "RestoreReport",
    "Snapshot",
    "Standing",
    "StandingCause",
    "Undo",
    "Vault",
    "Writers",
    "backup",
    "create_vault_with_recovery",
    "kept",
    "plan_restore",
    "recover",
    "restore",
    "rollback",
    "run_restore_test",
    "standard_actor",
    "version",
]
