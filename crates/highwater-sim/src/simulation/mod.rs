//! A simulation of whole nodes: the real core, driver, witness and verdicts over a simulated network,
//! ledger, clock and disks. One seed decides all that happens; the same seed is the same run.
//!
//! At each step something random happens: a message arrives, a payment begins, a node crashes between
//! any two writes, is restored from an old image, is copied and runs beside its copy. What must hold
//! is checked as things leave the nodes ([`watch`]), and once everything has healed ([`heal`]).

mod act;
mod gate;
mod heal;
mod random;
mod tests;
mod trace;
mod watch;
mod world;

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use highwater_guard::Policy;

use gate::Break;
use random::Rng;
use trace::Trace;
use world::World;

/// What kind of run a seed stands for.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    policy: Policy,
    parties: usize,
    /// A party that keeps to nothing: no guard, any old disk, and it lies about where it stands.
    rogue: Option<usize>,
    steps: usize,
    /// One input in this many ends in a crash.
    crashes: usize,
    /// How often somebody asks for the end of a channel.
    endings: usize,
    /// The guard is the library's, on a directory with a latch.
    real: bool,
    broken: Option<Break>,
}

impl Plan {
    fn of(seed: u64) -> Plan {
        let mut rng = Rng::new(seed);
        let policy = if rng.chance(2, 3) { Policy::Witness } else { Policy::Peer };
        let parties = if rng.chance(1, 4) { 3 } else { 2 };
        let rogue = (policy == Policy::Witness && rng.chance(1, 4)).then_some(parties - 1);
        let steps = 150 + rng.below(250);
        let crashes = rng.pick(&[15, 40, 80, 200]).expect("there are some");
        let endings = rng.pick(&[0, 1, 1, 6]).expect("there are some");
        let (real, broken) = (false, None);
        Plan { seed, policy, parties, rogue, steps, crashes, endings, real, broken }
    }
}

/// What must never happen, and has.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Breach {
    kind: Kind,
    what: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// An honest node has lost money to its peer.
    Money,
    /// An honest node has published what it had revoked, or revoked what it had published.
    Revoked,
    /// Two signatures under one number.
    SignedTwice,
    /// A node has spoken of a channel of which more had left it than it remembers.
    Forgot,
    /// Something left a node that must be silent.
    Spoke,
    /// Something left before it was where it must be.
    Order,
    /// A channel, or a payment, that lost nothing did not go on.
    Stuck,
    /// The code has panicked.
    Panic,
}

/// A run that came to its end.
#[derive(Debug)]
struct Run {
    hash: String,
    tally: Tally,
}

/// How often things happened, so that a test can tell that they do.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Tally {
    paid: u64,
    restored: u64,
    cloned: u64,
    crashed: u64,
    fenced: u64,
    blocked: u64,
    cleared: u64,
    punished: u64,
    closed: u64,
    open: u64,
}

impl Tally {
    /// A search in which something never happens shows nothing of it.
    fn everything_happened(&self) {
        let Tally { paid, restored, cloned, crashed, fenced, blocked, cleared, .. } = *self;
        let Tally { punished, closed, open, .. } = *self;
        let all =
            [paid, restored, cloned, crashed, fenced, blocked, cleared, punished, closed, open];
        assert!(all.iter().all(|count| *count > 0), "{self:?}");
    }

    fn add(&mut self, other: &Tally) {
        let Tally { paid, restored, cloned, crashed, fenced, blocked, cleared, .. } = *other;
        self.paid += paid;
        self.restored += restored;
        self.cloned += cloned;
        self.crashed += crashed;
        self.fenced += fenced;
        self.blocked += blocked;
        self.cleared += cleared;
        self.punished += other.punished;
        self.closed += other.closed;
        self.open += other.open;
    }
}

/// A run that has failed.
struct Failed {
    plan: Plan,
    breach: Breach,
    step: u64,
    story: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed { plan, breach: Breach { kind, what }, step, story } = self;
        writeln!(f, "seed {}, step {step}: {kind:?}: {what}\n{plan:?}\n{story}", plan.seed)?;
        write!(
            f,
            "alone: HIGHWATER_SIM_SEED={} cargo nextest run -p highwater-sim simulation::tests::many_seeds",
            plan.seed
        )
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Runs a plan to its end.
fn run(plan: Plan) -> Result<Run, Box<Failed>> {
    let trace = Rc::new(RefCell::new(Trace::default()));
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(plan.clone(), Rc::clone(&trace));
        world.begin()?;
        for _ in 0..plan.steps {
            world.act()?;
        }
        world.heal()?;
        Ok(world.tally)
    }));
    let breach = match caught {
        Ok(Ok(tally)) => return Ok(Run { hash: trace.borrow().hash(), tally }),
        Ok(Err(breach)) => breach,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let what = text.unwrap_or("it gave no reason").to_owned();
            Breach { kind: Kind::Panic, what }
        }
    };
    let (step, story) = trace.borrow().story();
    Err(Box::new(Failed { plan, breach, step, story }))
}
