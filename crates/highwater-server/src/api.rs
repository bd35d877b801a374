//! The table of all calls: how each is called over gRPC and over JSON-RPC, and who may. The methods of JSON-RPC are
//! registered by it, and `docs/api.md` is made of it and of the definition.

use highwater_gate::Scope;

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Its name in the definition: service and call.
    pub call: &'static str,
    /// Its method over JSON-RPC; `None` for what is sent bit by bit.
    pub method: Option<&'static str>,
    /// What that method was called before its name followed the call's: it goes on under that name too.
    pub alias: Option<&'static str>,
    /// What its caller may do at least.
    pub scope: Scope,
}

impl Described {
    const fn new(
        call: &'static str,
        method: Option<&'static str>,
        alias: Option<&'static str>,
        scope: Scope,
    ) -> Described {
        Described { call, method, alias, scope }
    }
}

/// All of them, in the order of the definition.
pub const CALLS: [Described; 14] = [
    Described::new("Backups.StartBackup", Some("start_backup"), Some("backup_now"), Scope::Backup),
    Described::new(
        "Backups.GetOperation",
        Some("get_operation"),
        Some("backup_status"),
        Scope::Read,
    ),
    Described::new(
        "Backups.ListOperations",
        Some("list_operations"),
        Some("backup_operations"),
        Scope::Read,
    ),
    Described::new(
        "Backups.CancelOperation",
        Some("cancel_operation"),
        Some("backup_cancel"),
        Scope::Backup,
    ),
    Described::new("Backups.WatchOperation", None, None, Scope::Read),
    Described::new(
        "Backups.ListSnapshots",
        Some("list_snapshots"),
        Some("backup_list"),
        Scope::Read,
    ),
    Described::new("Backups.GetSnapshot", Some("get_snapshot"), None, Scope::Read),
    Described::new("Backups.Check", Some("check"), None, Scope::Backup),
    Described::new("Backups.GetStatus", Some("get_status"), Some("backup_info"), Scope::Read),
    Described::new("Backups.Stream", None, None, Scope::Read),
    Described::new("Guard.ListChannels", Some("list_channels"), Some("guard_list"), Scope::Read),
    Described::new("Guard.Release", Some("release"), Some("guard_release"), Scope::Admin),
    Described::new("Replicas.GetReplica", Some("get_replica"), Some("replica_info"), Scope::Read),
    Described::new(
        "Replicas.FlushReplica",
        Some("flush_replica"),
        Some("replica_flush"),
        Scope::Backup,
    ),
];
