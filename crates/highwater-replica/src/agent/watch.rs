//! A look from beside at the replica of a node that is another process: at its database, which is only
//! read, and at the server. On a thread of its own, so that no caller waits for either.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use highwater::agent::{ReplicaSource, ReplicaStanding, ReplicaState};
use highwater::env::Env;
use highwater::ids::Time;
use highwater::{Error, Remedy, Result};
use parking_lot::{Condvar, Mutex};

use super::super::head::HeadState;
use super::super::inspect::{Holder, holder};
use super::super::keys::ReplicaKeys;
use super::super::relation::{LocalView, Relation, compare};
use super::super::remote::Remote;
use super::lag;

/// A look takes at most one part in this many of the time: a long queue is read as a whole.
const REST: u32 = 10;

/// What is looked at, and how often.
pub struct Watched {
    /// Looks at the node's database, as a process that is not the node.
    pub local: Box<dyn Fn() -> Result<LocalView> + Send + Sync>,
    /// The server; each of its calls must end by itself.
    pub remote: Arc<dyn Remote>,
    /// The keys of the store.
    pub keys: Arc<ReplicaKeys>,
    /// How long it rests between two looks.
    pub interval: Duration,
    /// The clock.
    pub env: Env,
}

/// A replica that is observed from another process, until this is dropped.
pub struct ReplicaWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    watched: Watched,
    state: Mutex<WatchState>,
    wake: Condvar,
}

#[derive(Default)]
struct WatchState {
    standing: ReplicaStanding,
    stopping: bool,
}

impl ReplicaWatch {
    /// Begins to look, the first time at once.
    ///
    /// # Errors
    /// Unavailable where no thread can be started.
    pub fn start(watched: Watched) -> Result<ReplicaWatch> {
        let (state, wake) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { watched, state, wake });
        let thread = std::thread::Builder::new()
            .name("highwater-replica-watch".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(|error| Error::io("starting the thread that looks at a replica", error))?;
        Ok(ReplicaWatch { shared, thread: Some(thread) })
    }
}

impl Drop for ReplicaWatch {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread catches its panics.
            let _ = thread.join();
        }
    }
}

impl ReplicaSource for ReplicaWatch {
    fn standing(&self, _now: Time) -> ReplicaStanding {
        self.shared.state.lock().standing.clone()
    }

    fn flush(&self, _wait: Duration) -> Result<()> {
        Err(Error::conflict("the node is another process: only it sends what waits")
            .with_remedy("the node does so itself")
            .with_remedy("stop it first")
            .with_remedy(Remedy::ReplicaFlush))
    }
}

impl Shared {
    fn run(&self) {
        let env = &self.watched.env;
        while !self.state.lock().stopping {
            let begun = env.monotonic();
            let look = AssertUnwindSafe(|| look(&self.watched));
            let standing = std::panic::catch_unwind(look).unwrap_or_else(|panic| ReplicaStanding {
                last_error: Some(panicked(panic.as_ref())),
                ..ReplicaStanding::default()
            });
            let took = env.monotonic().saturating_sub(begun);
            let mut state = self.state.lock();
            state.standing = standing;
            let rest = self.watched.interval.max(took * REST);
            let stays = |state: &mut WatchState| !state.stopping;
            self.wake.wait_while_for(&mut state, stays, rest);
        }
    }
}

/// One look at both sides.
pub(super) fn look(watched: &Watched) -> ReplicaStanding {
    let local = (watched.local)();
    let now = watched.env.now();
    let (mut standing, found) = match &local {
        Ok(view) => {
            let found = compare(view, &watched.local, &*watched.remote, &watched.keys);
            (here(view, now), found.map(|(relation, held)| (Some(relation), held)))
        }
        // What the server has is worth telling all the more.
        Err(error) => {
            let found = holder(&*watched.remote, &watched.keys).map(|held| (None, held));
            (ReplicaStanding { last_error: Some(error.clone()), ..Default::default() }, found)
        }
    };
    match found {
        Ok((relation, held)) => {
            standing.seen = Some(now);
            there(&mut standing, relation, held.as_ref());
        }
        Err(error) => {
            standing.last_error.get_or_insert(error);
        }
    }
    let waits = standing.pending_writes.map(|writes| writes > 0);
    let hydrates = local.is_ok_and(|view| view.state.hydrating);
    standing.backup_required = match (waits, standing.backup_exists) {
        (Some(true), _) | (_, Some(false)) => Some(true),
        _ if hydrates => Some(true),
        (Some(false), Some(true)) => Some(false),
        (_, None) | (None, _) => None,
    };
    standing
}

/// What the node's database says.
fn here(view: &LocalView, now: Time) -> ReplicaStanding {
    let state = &view.state;
    ReplicaStanding {
        pending_writes: Some(state.pending_writes),
        pending_bytes: Some(state.pending_bytes),
        lag: Some(lag(state.pending_since, now)),
        epoch: state.epoch,
        acknowledged: Some(state.acknowledged),
        written: Some(state.written),
        ..ReplicaStanding::default()
    }
}

/// What the server says, and how it fits with that.
fn there(standing: &mut ReplicaStanding, relation: Option<Relation>, held: Option<&Holder>) {
    standing.fenced = relation.map(|relation| relation == Relation::Foreign);
    standing.state = Some(match (relation, held) {
        (Some(Relation::Lost), _) => ReplicaState::Lost,
        (_, None) => ReplicaState::Absent,
        (_, Some(held)) => ReplicaState::from(held.state),
    });
    let whole = held.is_some_and(|held| held.state != HeadState::Filling);
    standing.backup_exists =
        Some(whole && !matches!(relation, Some(Relation::Lost | Relation::Foreign)));
    let problem = match (relation, held) {
        (Some(Relation::Lost), None) => Error::corrupt("the server has nothing, and had all of it"),
        (Some(Relation::Lost), Some(held)) => Error::corrupt(format!(
            "the server was set back: it has write {} of epoch {}, and has acknowledged more",
            held.seq, held.epoch
        )),
        (Some(Relation::Foreign), Some(held)) => Error::fenced(format!(
            "another start than this store knows writes to the server: {}, since {}, as epoch {}",
            held.owner, held.since, held.epoch
        )),
        _ => return,
    };
    standing.last_error.get_or_insert(problem);
}

/// A panic as an error: of the caller's own look at the database, or of its server.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::bug(format!("a panic: {}", text.unwrap_or("without words")))
}
