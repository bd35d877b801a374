//! What one client may hold of a server at once, so that no other one waits for it: requests under way, reads, and
//! memory for what is sent and what is answered. A client is a user; users are easily made where
//! everybody's key is one, so what comes from one network of strangers is counted as well.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use vss_api::error::VssError;

use crate::limits::Limits;
use crate::wire;

/// Memory is counted in pieces of this many bytes.
const PIECE: usize = 1 << 10;
/// If more users than this are known, those with nothing in flight are forgotten.
const CLIENTS: usize = 1024;
/// How many times as much as a user a network may hold.
const USERS_OF_NETWORK: usize = 4;
/// Digests, histories and listings of all users at once.
const LONG_AT_ONCE: usize = 2;

/// The bytes of this many pieces.
fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE).min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
}

fn room(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(pieces(bytes) as usize))
}

/// What one client may hold, and has left of it.
struct Share {
    memory: Arc<Semaphore>,
    bytes: usize,
    calls: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

/// The shares of all clients.
pub(crate) struct Shares {
    limits: Limits,
    /// Reads that a backend does at once for one user.
    reads: usize,
    memory: Arc<Semaphore>,
    long: Arc<Semaphore>,
    users: Mutex<HashMap<String, Arc<Share>>>,
    networks: Mutex<HashMap<IpAddr, Arc<Share>>>,
}

/// The turn of one request, while it is under way.
pub(crate) struct Turn {
    shares: Arc<Shares>,
    user: Arc<Share>,
    network: Option<Arc<Share>>,
    _calls: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// Memory, or places, that are held until this is dropped: of the user, the network, the server.
#[derive(Default)]
pub(crate) struct Held([Option<OwnedSemaphorePermit>; 3]);

impl Held {
    pub(crate) fn add(&mut self, more: Held) {
        for (own, more) in self.0.iter_mut().zip(more.0) {
            match (own, more) {
                (Some(own), Some(more)) => own.merge(more),
                (own @ None, more) => *own = more,
                (Some(_), None) => {}
            }
        }
    }
}

impl Shares {
    /// `reads` at once for all users.
    pub(crate) fn new(limits: Limits, reads: usize) -> Shares {
        let put = wire::put_bytes(limits.body_bytes);
        Shares {
            reads: (reads - reads / 4).max(1),
            memory: room(limits.memory_bytes.max(put)),
            long: Arc::new(Semaphore::new(LONG_AT_ONCE)),
            limits: Limits {
                // What is held for a put is taken as a whole: less could never be had.
                user_bytes: limits.user_bytes.max(put),
                memory_bytes: limits.memory_bytes.max(put),
                ..limits
            },
            users: Mutex::default(),
            networks: Mutex::default(),
        }
    }

    fn user(&self, user: &str) -> Arc<Share> {
        let mut users = self.users.lock();
        if let Some(share) = users.get(user) {
            return Arc::clone(share);
        }
        let share = self.share(1);
        remember(&mut users, user.to_owned(), &share);
        share
    }

    fn network(&self, network: IpAddr) -> Arc<Share> {
        let mut networks = self.networks.lock();
        if let Some(share) = networks.get(&network) {
            return Arc::clone(share);
        }
        let share = self.share(USERS_OF_NETWORK);
        remember(&mut networks, network, &share);
        share
    }

    /// What this many users may hold together.
    fn share(&self, users: usize) -> Arc<Share> {
        let bytes = (self.limits.user_bytes * users).min(self.limits.memory_bytes);
        Arc::new(Share {
            memory: room(bytes),
            bytes,
            calls: Arc::new(Semaphore::new(self.limits.calls_per_user * users)),
            reads: Arc::new(Semaphore::new(self.reads)),
            long: Arc::new(Semaphore::new(1)),
        })
    }

    /// The turn of a user's request, once fewer than the limit are in flight.
    ///
    /// # Errors
    /// Busy where there is none by `end`.
    pub(crate) async fn turn(
        self: &Arc<Shares>,
        user: &str,
        network: Option<IpAddr>,
        end: Instant,
    ) -> Result<Turn, VssError> {
        let user = self.user(user);
        let network = network.map(|network| self.network(network));
        let own = take(&user.calls, 1, end).await?;
        let theirs = match &network {
            Some(network) => Some(take(&network.calls, 1, end).await?),
            None => None,
        };
        Ok(Turn { shares: Arc::clone(self), user, network, _calls: (own, theirs) })
    }
}

impl Turn {
    /// Memory for an answer, or for what a request becomes.
    ///
    /// # Errors
    /// Busy where there is none by `end`.
    pub(crate) async fn memory(&self, bytes: usize, end: Instant) -> Result<Held, VssError> {
        let mut held = self.announced(bytes, end).await?;
        held.add(self.arrived(bytes, end).await?);
        Ok(held)
    }

    /// The user's own memory for a request of this length: to announce one holds up nobody else.
    ///
    /// # Errors
    /// As [`Turn::memory`].
    pub(crate) async fn announced(&self, bytes: usize, end: Instant) -> Result<Held, VssError> {
        let bytes = bytes.min(self.user.bytes);
        Ok(Held([Some(take(&self.user.memory, pieces(bytes), end).await?), None, None]))
    }

    /// Memory of the network and of the server, for what has come of it.
    ///
    /// # Errors
    /// As [`Turn::memory`].
    pub(crate) async fn arrived(&self, bytes: usize, end: Instant) -> Result<Held, VssError> {
        let theirs = match &self.network {
            Some(network) => {
                Some(take(&network.memory, pieces(bytes.min(network.bytes)), end).await?)
            }
            None => None,
        };
        let bytes = bytes.min(self.shares.limits.memory_bytes);
        let all = take(&self.shares.memory, pieces(bytes), end).await?;
        Ok(Held([None, theirs, Some(all)]))
    }

    /// A place for a read of one row.
    ///
    /// # Errors
    /// As [`Turn::memory`].
    pub(crate) async fn read(&self, end: Instant) -> Result<Held, VssError> {
        Ok(Held([Some(take(&self.user.reads, 1, end).await?), None, None]))
    }

    /// A place for a read of many rows: one of a user, few of all.
    ///
    /// # Errors
    /// As [`Turn::memory`].
    pub(crate) async fn long(&self, end: Instant) -> Result<Held, VssError> {
        // The user's own first: who waits for oneself keeps no place from others.
        let own = take(&self.user.long, 1, end).await?;
        Ok(Held([Some(own), None, Some(take(&self.shares.long, 1, end).await?)]))
    }
}

/// Forgets who has nothing under way, where too many are known.
fn remember<K: Eq + Hash>(known: &mut HashMap<K, Arc<Share>>, key: K, share: &Arc<Share>) {
    if known.len() >= CLIENTS {
        known.retain(|_, share| Arc::strong_count(share) > 1);
    }
    known.insert(key, Arc::clone(share));
}

async fn take(
    semaphore: &Arc<Semaphore>,
    permits: u32,
    end: Instant,
) -> Result<OwnedSemaphorePermit, VssError> {
    // Most often there is room, and no clock has to be asked.
    if let Ok(permit) = Arc::clone(semaphore).try_acquire_many_owned(permits) {
        return Ok(permit);
    }
    let busy = || VssError::InternalServerError("too much is under way at once".to_owned());
    let taken = timeout_at(end, Arc::clone(semaphore).acquire_many_owned(permits)).await;
    taken.map_err(|_| busy())?.map_err(|_| busy())
}

#[cfg(test)]
mod tests;
