//! The replica of a node that is another process, looked at from beside.

use std::sync::Arc;
use std::time::Duration;

use highwater::{Env, Result};
use highwater_replica::agent::{ReplicaWatch, Watched};
use highwater_replica::local::SqliteStore;
use highwater_replica::remote::VssRemote;
use highwater_replica::{ReplicaKeys, local_view};

use crate::cli::{KeyArgs, ReplicaArgs};
use crate::commands::replica::connection;
use crate::settings::{NodeSettings, ReplicaSettings};

/// How long after which a request of a look is given up.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// Begins to look at the replica of a node.
pub(super) fn watch(settings: &ReplicaSettings, env: &Env) -> Result<ReplicaWatch> {
    let (keys, remote) = connect(settings, env)?;
    let keys = Arc::new(keys);
    let (path, local_keys) = (settings.local.clone(), Arc::clone(&keys));
    let look = move || SqliteStore::read_only(&path, |store| local_view(store, &local_keys));
    ReplicaWatch::start(Watched {
        local: Box::new(look),
        remote: Arc::new(remote),
        keys,
        interval: settings.interval,
        env: env.clone(),
    })
}

/// Finds what is wrong with key, address or certificates before anything is ended for it.
pub(super) fn check(nodes: &[NodeSettings], env: &Env) -> Result<()> {
    for node in nodes {
        if let Some(replica) = &node.replica {
            connect(replica, env)?;
        }
    }
    Ok(())
}

fn connect(settings: &ReplicaSettings, env: &Env) -> Result<(ReplicaKeys, VssRemote)> {
    let args = ReplicaArgs {
        server: settings.server.clone(),
        store: settings.store.clone(),
        auth: settings.auth,
        token_file: settings.token_file.clone(),
        ca_file: settings.ca_file.clone(),
        allow_http: settings.allow_http,
        key: KeyArgs::default(),
    };
    let (keys, server) = connection(&settings.key, env, &args)?;
    Ok((keys, server.timeout(REQUEST_MAX).build()?))
}
