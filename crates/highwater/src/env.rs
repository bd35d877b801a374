//! The one door to the outside: clock, randomness, pauses, threads, fault points. Injected, so that
//! a simulation can hold each of them; nothing else in the library asks the operating system for
//! the time or for random bytes.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::time::Time;

/// A source of time.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Time;
    /// A clock that never goes back, from an arbitrary start; it goes on while the machine is suspended.
    fn monotonic(&self) -> Duration;
    /// Lets `duration` pass.
    fn pause(&self, duration: Duration);
}

/// A source of random bytes for names and ids. Keys and salts never come from here.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// Decides at each named step whether it fails; the crash tests kill the process there.
pub trait Faults: Send + Sync {
    /// Called once for each passage of the step.
    fn reached(&self, point: FaultPoint) -> Result<()>;
}

macro_rules! fault_points {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The write steps of backup, forget, prune, export, import, restore and guard, in the order in
        /// which they are passed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FaultPoint { $($(#[$doc])* $name,)* }

        impl FaultPoint {
            /// Every fault point.
            pub const ALL: &[FaultPoint] = &[$(FaultPoint::$name,)*];

            /// The name by which a test chooses it.
            pub fn name(self) -> &'static str {
                match self { $(FaultPoint::$name => $text,)* }
            }
        }
    };
}

fault_points! {
    /// A node is stopped, and nothing of its image is there.
    FreezeStopped = "freeze.stopped",
    /// A node is stopped; some of its files are linked or copied, not all.
    FreezeImage = "freeze.image",
    /// A node goes on; its image was not read.
    FreezeContinued = "freeze.continued",
    /// A RocksDB in use: its logs are held, its MANIFEST was not read.
    LiveLogs = "live.logs",
    /// Its MANIFEST is read, its tables are not held.
    LiveManifest = "live.manifest",
    /// Its tables are held, its logs were not looked at again.
    LiveTables = "live.tables",
    /// Its logs end here; whether its MANIFEST is still the same was not asked.
    LiveEnds = "live.ends",
    /// Before the intent of a backup is put.
    BackupIntent = "backup.intent",
    /// The intent is there, no pack is.
    BackupPackBegin = "backup.pack.begin",
    /// In the middle of a pack.
    BackupPackWrite = "backup.pack.write",
    /// Before a pack becomes visible under its name.
    BackupPackComplete = "backup.pack.complete",
    /// All packs are there, the manifest is not.
    BackupManifest = "backup.manifest",
    /// The manifest is there; the intent was not looked for again.
    BackupSecondLook = "backup.second_look",
    /// The manifest is there, the node record is not.
    BackupNodeRecord = "backup.node_record",
    /// All is there, the intent still stands.
    BackupIntentDelete = "backup.intent.delete",
    /// Before a tombstone is put.
    ForgetTombstone = "forget.tombstone",
    /// A snapshot is brought back: its tombstone still stands.
    ForgetUndo = "forget.undo",
    /// Before a prune claims what it will delete.
    PruneClaim = "prune.claim",
    /// The claim stands; nothing is deleted.
    PruneSurvey = "prune.survey",
    /// Before an intent of a backup that is dead is deleted.
    PruneIntent = "prune.intent",
    /// Before a manifest is deleted.
    PruneManifest = "prune.manifest",
    /// All manifests that go are gone; before a pack is deleted.
    PrunePack = "prune.pack",
    /// All packs that go are gone; before a record in the trash is deleted.
    PruneTrash = "prune.trash",
    /// Before the intent of a rewriting is put.
    RewriteIntent = "rewrite.intent",
    /// Before a new pack is begun.
    RewritePack = "rewrite.pack",
    /// In the middle of a new pack.
    RewriteFrame = "rewrite.frame",
    /// All new packs are there; before a manifest of the next generation is put.
    RewriteManifest = "rewrite.manifest",
    /// A manifest of the next generation is there; the intent was not looked for again.
    RewriteSecondLook = "rewrite.second_look",
    /// All manifests are there; the intent still stands.
    RewriteDone = "rewrite.done",
    /// A local object's bytes are written, not yet durable.
    LocalPutSync = "local.put.sync",
    /// A local object is durable under its temporary name.
    LocalPutLink = "local.put.link",
    /// Some bytes of an archive are written, not all.
    ExportWrite = "export.write",
    /// An archive is written, not yet durable.
    ExportSync = "export.sync",
    /// An archive is durable under its temporary name.
    ExportRename = "export.rename",
    /// A copy of a vault is being made; what makes it a vault is not there yet.
    ImportVault = "import.vault",
    /// Before the intent of an import is put.
    ImportIntent = "import.intent",
    /// In the middle of a pack.
    ImportPackWrite = "import.pack.write",
    /// Before a pack becomes visible under its name.
    ImportPackComplete = "import.pack.complete",
    /// All packs of all archives are there and verified; the node may have no record yet.
    ImportNodeClaim = "import.node_claim",
    /// All packs of all archives are there and verified, a manifest is not.
    ImportManifest = "import.manifest",
    /// The manifest is there, the node record does not tell of it.
    ImportNodeRecord = "import.node_record",
    /// All is there, the intent still stands.
    ImportIntentDelete = "import.intent.delete",
    /// Before the work directory of a restore is made.
    RestoreJournal = "restore.journal",
    /// In the middle of writing the staged files.
    RestoreStage = "restore.stage",
    /// Staging is written, not yet durable.
    RestoreSync = "restore.sync",
    /// Staging is durable and checked; the journal does not say so yet.
    RestoreReady = "restore.ready",
    /// The journal announces the exchange, which has not happened.
    RestoreExchange = "restore.exchange",
    /// In a mount point: some entry points are withheld.
    RestoreWithhold = "restore.withhold",
    /// In a mount point: some entries are exchanged.
    RestoreEntry = "restore.entry",
    /// In a mount point: all entries are exchanged, the entry points are still withheld.
    RestoreReveal = "restore.reveal",
    /// The exchange has happened; the old directory is not yet put aside.
    RestoreKeep = "restore.keep",
    /// The old directory is put aside; the journal still stands.
    RestoreDone = "restore.done",
    /// A replicated store is hydrated and ours; nothing of the node directory is staged.
    PairHydrated = "pair.hydrated",
    /// The staged files have the replicated store; nothing is exchanged.
    PairFilled = "pair.filled",
    /// Some channels of a node are marked stale, not all.
    GuardMark = "guard.mark",
    /// A latch is written, and not yet under its name.
    GuardLatch = "guard.latch",
    /// The latch names what is withheld; some entry points are, not all.
    GuardWithhold = "guard.withhold",
    /// A node directory stands in its place; its marks were not read back there.
    GuardReadBack = "guard.read_back",
    /// A floor is recorded in the latch; the file of its signer does not have it yet.
    GuardFloor = "guard.floor",
    /// A release is recorded; some entry points are back, not all.
    GuardRelease = "guard.release",
}

/// Clock, randomness, fault points and the helper; clones share them.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    faults: Arc<dyn Faults>,
    helper: Option<Arc<[OsString]>>,
}

impl Env {
    /// The operating system's clock and randomness; no fault.
    pub fn system() -> Env {
        Env {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            faults: Arc::new(NoFaults),
            helper: None,
        }
    }

    /// With another clock.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Env {
        self.clock = Arc::new(clock);
        self
    }

    /// With other randomness.
    pub fn with_random(mut self, random: impl Random + 'static) -> Env {
        self.random = Arc::new(random);
        self
    }

    /// With fault points that do something.
    pub fn with_faults(mut self, faults: impl Faults + 'static) -> Env {
        self.faults = Arc::new(faults);
        self
    }

    /// With a program and its arguments that run [`crate::engine::confined::serve`] over their standard
    /// input, which is a directory, and their standard output, which is a socket. Where root works in a
    /// directory of another user, that program opens databases with the rights of that user.
    pub fn with_helper(mut self, command: impl IntoIterator<Item = OsString>) -> Env {
        self.helper = Some(command.into_iter().collect());
        self
    }

    #[cfg_attr(
        not(feature = "sqlite"),
        expect(dead_code, reason = "only SQLite is read by another process")
    )]
    pub(crate) fn helper(&self) -> Option<&[OsString]> {
        self.helper.as_deref()
    }

    /// The wall clock.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// A clock that never goes back.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Lets `duration` pass.
    pub fn pause(&self, duration: Duration) {
        self.clock.pause(duration);
    }

    /// `N` random bytes for a name or an id.
    pub fn random<const N: usize>(&self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Passes a named write step.
    pub fn fault(&self, point: FaultPoint) -> Result<()> {
        self.faults.reached(point)
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), bytes)
            .map_err(|_| Error::unavailable("the operating system gives no random bytes"))
    }
}

struct NoFaults;

impl Faults for NoFaults {
    fn reached(&self, _: FaultPoint) -> Result<()> {
        Ok(())
    }
}
