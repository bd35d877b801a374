//! What one client may hold of a server at once, so that no other one waits for it: requests under way, reads, and
//! memory for what is sent and what is answered. A client is a user; users are easily made where
//! everybody's key is one, so what comes from one network of strangers is counted as well.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use vss_api::error::VssError;

use super::limits::Limits;
use super::wire;

/// Memory is counted in pieces of so many bytes.
const PIECE: usize = 1 << 10;
/// Whoever is not at work is forgotten where more than so many are known.
const CLIENTS: usize = 1024;
/// A network may hold so many times what a user may.
const USERS_OF_NETWORK: usize = 4;
/// Digests, histories and listings of all users at once.
const LONG_AT_ONCE: usize = 2;

/// So many pieces are so many bytes.
fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE).min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
}

fn room(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(pieces(bytes) as usize))
}

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Client {
    User(String),
    Network(IpAddr),
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
    clients: Mutex<HashMap<Client, Arc<Share>>>,
}

/// The turn of one request, while it is under way.
pub(crate) struct Turn {
    shares: Arc<Shares>,
    user: Arc<Share>,
    network: Option<Arc<Share>>,
    _calls: Vec<OwnedSemaphorePermit>,
}

/// Memory, or a place, that is held until this is dropped.
#[derive(Default)]
pub(crate) struct Held(Vec<OwnedSemaphorePermit>);

impl Held {
    pub(crate) fn add(&mut self, more: Held) {
        for permit in more.0 {
            // Permits of one semaphore become one.
            match self.0.iter_mut().find(|own| Arc::ptr_eq(own.semaphore(), permit.semaphore())) {
                Some(own) => own.merge(permit),
                None => self.0.push(permit),
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
            clients: Mutex::default(),
        }
    }

    fn of(&self, client: Client) -> Arc<Share> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = clients.get(&client) {
            return Arc::clone(share);
        }
        if clients.len() >= CLIENTS {
            clients.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let times = match client {
            Client::User(_) => 1,
            Client::Network(_) => USERS_OF_NETWORK,
        };
        let bytes = (self.limits.user_bytes * times).min(self.limits.memory_bytes);
        let share = Arc::new(Share {
            memory: room(bytes),
            bytes,
            calls: Arc::new(Semaphore::new(self.limits.calls_per_user * times)),
            reads: Arc::new(Semaphore::new(self.reads)),
            long: Arc::new(Semaphore::new(1)),
        });
        clients.insert(client, Arc::clone(&share));
        share
    }

    /// The turn of a user's request, once fewer than so many are under way.
    ///
    /// # Errors
    /// Busy where there is none by `end`.
    pub(crate) async fn turn(
        self: &Arc<Shares>,
        user: &str,
        network: Option<IpAddr>,
        end: Instant,
    ) -> Result<Turn, VssError> {
        let user = self.of(Client::User(user.to_owned()));
        let network = network.map(|network| self.of(Client::Network(network)));
        let mut calls = vec![take(&user.calls, 1, end).await?];
        if let Some(network) = &network {
            calls.push(take(&network.calls, 1, end).await?);
        }
        Ok(Turn { shares: Arc::clone(self), user, network, _calls: calls })
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
        Ok(Held(vec![take(&self.user.memory, pieces(bytes), end).await?]))
    }

    /// Memory of the network and of the server, for what has come of it.
    ///
    /// # Errors
    /// As [`Turn::memory`].
    pub(crate) async fn arrived(&self, bytes: usize, end: Instant) -> Result<Held, VssError> {
        let mut held = Vec::new();
        if let Some(network) = &self.network {
            held.push(take(&network.memory, pieces(bytes.min(network.bytes)), end).await?);
        }
        let bytes = bytes.min(self.shares.limits.memory_bytes);
        held.push(take(&self.shares.memory, pieces(bytes), end).await?);
        Ok(Held(held))
    }

    /// A place for a read of one row.
    ///
    /// # Errors
    /// As [`Turn::memory`].
    pub(crate) async fn read(&self, end: Instant) -> Result<Held, VssError> {
        Ok(Held(vec![take(&self.user.reads, 1, end).await?]))
    }

    /// A place for a read of many rows: one of a user, few of all.
    ///
    /// # Errors
    /// As [`Turn::memory`].
    pub(crate) async fn long(&self, end: Instant) -> Result<Held, VssError> {
        // The user's own first: who waits for oneself keeps no place from others.
        let own = take(&self.user.long, 1, end).await?;
        Ok(Held(vec![own, take(&self.shares.long, 1, end).await?]))
    }
}

async fn take(
    semaphore: &Arc<Semaphore>,
    permits: u32,
    end: Instant,
) -> Result<OwnedSemaphorePermit, VssError> {
    let busy = || VssError::InternalServerError("too much is under way at once".to_owned());
    let taken = timeout_at(end, Arc::clone(semaphore).acquire_many_owned(permits)).await;
    taken.map_err(|_| busy())?.map_err(|_| busy())
}

#[cfg(test)]
mod tests;
