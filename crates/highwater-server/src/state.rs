//! What all faces of a server share, and who may do what with it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use highwater::Env;
use highwater_gate::{Scope, Tokens, network};
use tokio::sync::{Semaphore, watch};

use crate::Agents;
use crate::audit::{Audit, Line};
use crate::fault::CallFault;
use crate::limits::{Buckets, Limits};

/// What this server can do. A client asks for nothing that is not named here.
const CAPABILITIES: &[&str] = &[
    "backup",
    "cancel",
    "check",
    "check.read_data",
    "guard",
    "replica",
    "restore_test",
    "stream",
    "stream.resume",
    "stream.since",
    "watch",
];

/// The same, as messages bear it.
pub(crate) fn capabilities() -> Vec<String> {
    CAPABILITIES.iter().map(|name| (*name).to_owned()).collect()
}

/// What all faces of a server share.
pub(crate) struct ServerState {
    pub(crate) agents: Agents,
    pub(crate) limits: Limits,
    pub(crate) env: Env,
    /// Who is let in; without it, everybody who gets through to the port.
    pub(crate) tokens: Option<Tokens>,
    /// What a caller may do without authentication.
    pub(crate) unasked: Scope,
    pub(crate) audit: Option<Audit>,
    pub(crate) buckets: Buckets,
    /// Places for streams.
    pub(crate) streams: Arc<Semaphore>,
    /// Places for calls that block.
    pub(crate) calls: Arc<Semaphore>,
    /// Places for calls that wait for a replica, which would keep all of those.
    pub(crate) flushes: Semaphore,
    /// It is called over TLS.
    pub(crate) secure: bool,
    /// True once the server stops: what would last ends.
    pub(crate) stopping: watch::Sender<bool>,
}

/// Who calls: what a token says, or somebody on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) label: String,
    pub(crate) scope: Scope,
}

/// From where a request comes, and who sends it where that is known. Each request bears one.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) caller: Option<Caller>,
    pub(crate) address: IpAddr,
}

impl ServerState {
    pub(crate) fn new(agents: Agents, limits: Limits, env: Env) -> ServerState {
        ServerState {
            agents,
            limits,
            env,
            tokens: None,
            unasked: Scope::Backup,
            audit: None,
            buckets: Buckets::new(limits.requests_per_second),
            streams: Arc::new(Semaphore::new(limits.streams)),
            calls: Arc::new(Semaphore::new(limits.calls)),
            flushes: Semaphore::new((limits.calls / 8).max(1)),
            secure: false,
            stopping: watch::Sender::new(false),
        }
    }

    /// Who sends a request that bears no identity: nobody where tokens are asked for.
    pub(crate) fn stranger(&self) -> Identity {
        let local = || Caller { label: "local".to_owned(), scope: self.unasked };
        Identity {
            caller: self.tokens.is_none().then(local),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    /// Lets a call begin, or says why not. Whatever changes something is recorded before it is done, and
    /// so is each refusal. May block.
    ///
    /// # Errors
    /// Without a known token, without the scope, over the caller's limit, or where the record can't be
    /// written.
    pub(crate) fn allow(
        &self,
        identity: &Identity,
        scope: Scope,
        method: &str,
        about: &str,
    ) -> Result<Caller, CallFault> {
        self.take(identity)?;
        let refusal = match &identity.caller {
            None => CallFault::Unauthenticated,
            Some(caller) if caller.scope < scope => match self.tokens {
                Some(_) => CallFault::Scope(scope),
                None => CallFault::Unasked(scope),
            },
            Some(caller) => {
                if scope > Scope::Read {
                    self.record(identity, method, about, "allowed")?;
                }
                return Ok(caller.clone());
            }
        };
        self.refused(identity, method, about, &refusal)?;
        Err(refusal)
    }

    /// Counts a request of a caller; of one that is not known, by its address.
    pub(crate) fn take(&self, identity: &Identity) -> Result<(), CallFault> {
        let name = match &identity.caller {
            Some(caller) => caller.label.clone(),
            // No label has a blank.
            None => format!("from {}", network(identity.address)),
        };
        match self.buckets.take(&name, self.env.monotonic()) {
            true => Ok(()),
            false => Err(CallFault::Limit("requests of one caller")),
        }
    }

    /// Writes a line into the audit file, where there is one.
    pub(crate) fn record(
        &self,
        identity: &Identity,
        method: &str,
        about: &str,
        outcome: &str,
    ) -> Result<(), CallFault> {
        let Some(audit) = &self.audit else { return Ok(()) };
        let caller = identity.caller.as_ref().map(|caller| caller.label.as_str());
        let line = Line { caller, address: identity.address, method, about, outcome };
        Ok(audit.write(&line, &self.env)?)
    }

    /// The same of a refusal for who calls, of which equal ones are counted.
    pub(crate) fn refused(
        &self,
        identity: &Identity,
        method: &str,
        about: &str,
        refusal: &CallFault,
    ) -> Result<(), CallFault> {
        let Some(audit) = &self.audit else { return Ok(()) };
        let caller = identity.caller.as_ref().map(|caller| caller.label.as_str());
        let outcome = match refusal {
            CallFault::Unauthenticated => "unauthenticated",
            _ => "denied",
        };
        let line = Line { caller, address: identity.address, method, about, outcome };
        Ok(audit.refuse(&line, &self.env)?)
    }

    /// Runs work that blocks where it may, when there is a place for it.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<ServerState>,
        work: impl FnOnce(&ServerState) -> Result<T, CallFault> + Send + 'static,
    ) -> Result<T, CallFault> {
        let place = Arc::clone(&self.calls).acquire_owned().await;
        let state = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&state)
        });
        done.await.map_err(CallFault::panicked)?
    }
}
