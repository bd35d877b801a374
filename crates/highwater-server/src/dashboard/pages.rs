//! What the pages show: from the state of the agents to templates.

use askama::Template;
use highwater::Result;
use highwater::agent::{Agent, Operation, OperationState, Snapshot, Status, Task};
use highwater::guard::{HeldState, Latch, Recorded};
use highwater::ids::Time;
use highwater::vault::Level;

use super::commands::{self, Server};
use super::format::{self, Moment};
use super::replica::ReplicaRow;
use super::standing::{self, Finding, Tone};

/// How many snapshots of a node are shown; the program lists all.
const SNAPSHOTS_MAX: usize = 100;
/// How many operations of a node are shown.
const OPERATIONS_MAX: u32 = 100;
/// How many backups the strip on the overview shows.
const STRIP_MAX: usize = 24;
/// How many quarantined channels of a node are shown; the program lists all.
const HELD_MAX: usize = 200;
/// The digits of a snapshot's id that tables show.
const SHORT_ID: usize = 12;

/// What stands around each page.
pub(super) struct Frame {
    pub(super) title: String,
    pub(super) version: &'static str,
    pub(super) now: Option<Moment>,
    pub(super) nodes: Vec<Link>,
    /// The label of the token that the session has begun with.
    pub(super) session: Option<String>,
}

/// A way to another page.
pub(super) struct Link {
    pub(super) name: String,
    pub(super) here: bool,
}

/// What every page is made from.
pub(super) struct Scene {
    pub(super) agents: Vec<Agent>,
    pub(super) now: Time,
    pub(super) server: Server,
    pub(super) session: Option<String>,
}

impl Scene {
    fn frame(&self, title: &str, here: Option<&str>) -> Frame {
        let nodes = self.agents.iter().map(|agent| {
            let name = agent.node().to_string();
            let here = here == Some(name.as_str());
            Link { name, here }
        });
        Frame {
            title: title.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            now: Some(Moment::new(self.now, self.now)),
            nodes: nodes.collect(),
            session: self.session.clone(),
        }
    }
}

/// All nodes.
#[derive(Template)]
#[template(path = "overview.html")]
pub(super) struct Overview {
    frame: Frame,
    tone: Tone,
    headline: String,
    /// After how long a backup is too old.
    nodes: Vec<NodeCard>,
    running: Vec<Running>,
    held: Vec<HeldRow>,
    replicas: Vec<ReplicaRow>,
    tests: Vec<TestRow>,
    /// How many passed their last restore test.
    tested: String,
}

/// One node.
#[derive(Template)]
#[template(path = "node.html")]
pub(super) struct NodePage {
    frame: Frame,
    node: NodeCard,
    running: Vec<Running>,
    held: Vec<HeldRow>,
    replicas: Vec<ReplicaRow>,
    tests: Vec<TestRow>,
    snapshots: Vec<SnapshotRow>,
    /// How many there are beside those shown.
    snapshots_more: usize,
    operations: Vec<OperationRow>,
    list_snapshots: String,
    plan_restore: String,
    back_up: String,
}

/// One operation.
#[derive(Template)]
#[template(path = "operation.html")]
pub(super) struct OperationPage {
    frame: Frame,
    operation: OperationRow,
    running: Vec<Running>,
    trigger: &'static str,
    queued: Moment,
    snapshot: Option<String>,
    location: String,
    bytes: Option<String>,
    warnings: Vec<String>,
    again: Option<String>,
}

/// A message in place of a page.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct Message {
    pub(super) frame: Frame,
    pub(super) heading: String,
    pub(super) text: String,
}

/// The way in.
#[derive(Template)]
#[template(path = "login.html")]
pub(super) struct Login {
    pub(super) frame: Frame,
    pub(super) problem: Option<&'static str>,
}

/// A node in short.
pub(super) struct NodeCard {
    name: String,
    dir: String,
    location: String,
    tone: Tone,
    word: &'static str,
    findings: Vec<Finding>,
    /// The age of the newest verified snapshot: numbers and units.
    age: Option<Vec<(u64, &'static str)>>,
    newest: Option<SnapshotRow>,
    /// The newest one that was restored, where it is another one.
    restored: Option<Moment>,
    next: String,
    next_at: Option<Moment>,
    failures: u32,
    last_error: Option<LastError>,
    seen: Option<Moment>,
    strip: Vec<Bar>,
    strip_text: String,
    /// What its backup does right now.
    running: Option<String>,
    sizes: Option<Trend>,
    durations: Option<Trend>,
    /// How long the last backup took.
    took: Option<String>,
}

/// How a number went, as a line.
struct Trend {
    points: String,
    words: String,
}

/// The picture that a trend is drawn in, and the rim that the line keeps to it.
const TREND_WIDTH: f64 = 48.0;
const TREND_HEIGHT: f64 = 16.0;
const TREND_RIM: f64 = 1.5;

impl Trend {
    /// Of numbers in their order, from 0 at the bottom; `None` of fewer than two.
    fn of(numbers: &[f64], what: &str) -> Option<Trend> {
        let highest = numbers.iter().copied().fold(0.0, f64::max);
        let (first, last) = (numbers.first()?, numbers.last()?);
        if numbers.len() < 2 || highest <= 0.0 {
            return None;
        }
        let step = (TREND_WIDTH - 2.0 * TREND_RIM) / (numbers.len() - 1) as f64;
        let place = |(at, number): (usize, &f64)| {
            let x = TREND_RIM + step * at as f64;
            let y = TREND_HEIGHT - TREND_RIM - (TREND_HEIGHT - 2.0 * TREND_RIM) * number / highest;
            format!("{x:.1},{y:.1}")
        };
        let points: Vec<String> = numbers.iter().enumerate().map(place).collect();
        let way = match () {
            () if *last > first * 1.1 => "rose",
            () if *last < first * 0.9 => "fell",
            () => "stayed about the same",
        };
        let words = format!("{what} of the last {} {way}", numbers.len());
        Some(Trend { points: points.join(" "), words })
    }
}

struct LastError {
    kind: String,
    reason: String,
    operation: String,
    when: Option<Moment>,
}

/// A backup on the strip.
struct Bar {
    class: &'static str,
    title: String,
}

struct SnapshotRow {
    id: String,
    short: String,
    time: Moment,
    level: &'static str,
    level_class: &'static str,
    size: String,
    stored: String,
    marks: Vec<(String, String)>,
    tags: Vec<(String, String)>,
}

/// An operation, in a table or at the head of its page.
pub(super) struct OperationRow {
    id: String,
    node: String,
    task: &'static str,
    state: &'static str,
    class: &'static str,
    started: Option<Moment>,
    finished: Option<Moment>,
    took: Option<String>,
    passed: Option<String>,
    /// The kind of its error, and why.
    reason: Option<(Option<String>, String)>,
}

/// An operation that runs or waits.
pub(super) struct Running {
    row: OperationRow,
    stage: String,
    percent: Option<u8>,
    done: String,
    total: Option<String>,
    cancel: String,
}

struct HeldRow {
    node: String,
    id: String,
    state: &'static str,
    class: &'static str,
    reason: String,
    evidence: Vec<String>,
    show: String,
    release: String,
}

struct TestRow {
    node: String,
    class: &'static str,
    result: &'static str,
    why: Option<String>,
    last: Option<(String, Moment)>,
    passed: Option<Moment>,
    snapshot: Option<String>,
    what: String,
    command: String,
}

impl Overview {
    pub(super) fn new(scene: &Scene) -> Result<Overview> {
        let mut overview = Overview {
            frame: scene.frame("Overview", None),
            tone: Tone::Good,
            headline: String::new(),
            nodes: Vec::new(),
            running: Vec::new(),
            held: Vec::new(),
            replicas: Vec::new(),
            tests: Vec::new(),
            tested: String::new(),
        };
        for agent in &scene.agents {
            let status = agent.status();
            let node = NodeCard::new(scene, agent, &status)?;
            overview.tone = overview.tone.max(node.tone);
            overview.nodes.push(node);
            overview.running.extend(running(scene, &status));
            overview.held.extend(held(agent, &status)?);
            overview.replicas.extend(ReplicaRow::of(&status));
            overview.tests.push(TestRow::new(&status));
        }
        overview.headline = headline(&overview.nodes);
        overview.tested = tested(&overview.tests);
        // What needs attention comes first; else they stand by their names.
        overview.nodes.sort_by_key(|node| std::cmp::Reverse(node.tone));
        Ok(overview)
    }
}

fn tested(tests: &[TestRow]) -> String {
    let passed = tests.iter().filter(|test| test.class == "good").count();
    let never = tests.iter().filter(|test| test.last.is_none()).count();
    let failed = tests.len() - passed - never;
    format!(
        "Of the last tests {passed} passed and {failed} failed; {never} nodes were never tested."
    )
}

fn headline(nodes: &[NodeCard]) -> String {
    let bad = nodes.iter().filter(|node| node.tone != Tone::Good).count();
    match (bad, nodes.len()) {
        (_, 0) => "No nodes yet".to_owned(),
        (0, 1) => "The node is backed up".to_owned(),
        (0, all) => format!("All {all} nodes are backed up"),
        (_, 1) => "The node needs attention".to_owned(),
        (1, all) => format!("1 of {all} nodes needs attention"),
        (bad, all) if bad == all => format!("All {all} nodes need attention"),
        (bad, all) => format!("{bad} of {all} nodes need attention"),
    }
}

impl NodePage {
    pub(super) fn new(scene: &Scene, agent: &Agent) -> Result<NodePage> {
        let status = agent.status();
        let snapshots = status.snapshots.as_deref().unwrap_or_default();
        let operations = agent.operations(OPERATIONS_MAX)?;
        Ok(NodePage {
            frame: scene.frame(status.node.as_str(), Some(status.node.as_str())),
            node: NodeCard::new(scene, agent, &status)?,
            running: running(scene, &status),
            held: held(agent, &status)?,
            replicas: ReplicaRow::of(&status).into_iter().collect(),
            tests: vec![TestRow::new(&status)],
            snapshots: snapshots
                .iter()
                .rev()
                .take(SNAPSHOTS_MAX)
                .map(|snapshot| SnapshotRow::new(snapshot, scene.now))
                .collect(),
            snapshots_more: snapshots.len().saturating_sub(SNAPSHOTS_MAX),
            operations: operations
                .iter()
                .filter(|operation| operation.state.is_final())
                .map(|operation| OperationRow::new(operation, scene.now))
                .collect(),
            list_snapshots: commands::list_snapshots(&status),
            plan_restore: commands::plan_restore(&status),
            back_up: scene.server.back_up(status.node.as_str()),
        })
    }
}

impl OperationPage {
    pub(super) fn new(scene: &Scene, operation: &Operation) -> OperationPage {
        let node = operation.node.as_str();
        let row = OperationRow::new(operation, scene.now);
        let live = !operation.state.is_final();
        let again = operation.state == OperationState::Failed && operation.task == Task::Backup;
        OperationPage {
            frame: scene.frame(&format!("{} of {node}", row.task), Some(node)),
            running: live.then(|| Running::new(operation, scene)).into_iter().collect(),
            trigger: match operation.trigger.name() {
                "manual" => "requested by a caller",
                "start" => "the start of the agent",
                "schedule" => "the schedule",
                "event" => "a change that the node reported",
                "retry" => "a retry after a failure",
                other => other,
            },
            queued: Moment::new(operation.queued_at, scene.now),
            snapshot: operation.snapshot.map(|snapshot| snapshot.to_string()),
            location: operation.location.clone(),
            bytes: (operation.bytes_total > 0).then(|| {
                let [done, total] =
                    [operation.bytes_done, operation.bytes_total].map(format::bytes);
                format!("{done} of {total}")
            }),
            warnings: operation.warnings.clone(),
            again: again.then(|| scene.server.back_up(node)),
            operation: row,
        }
    }
}

impl NodeCard {
    fn new(scene: &Scene, agent: &Agent, status: &Status) -> Result<NodeCard> {
        let findings = standing::findings(status, &scene.server);
        let newest = status.newest(Level::Sealed);
        let restored = status
            .newest(Level::Restored)
            .filter(|restored| newest.is_none_or(|newest| newest.snapshot != restored.snapshot));
        let operations = agent.operations(OPERATIONS_MAX)?;
        let strip = strip(&operations);
        let failed = strip.iter().filter(|bar| bar.class == "bad").count();
        let withheld = agent.quarantine()?.iter().any(|held| held.state == HeldState::Withheld);
        let next = match status.next_backup {
            _ if withheld => "not while it is withheld",
            None => "when it is asked for",
            Some(next) if next <= status.now => "due now",
            Some(_) => "",
        };
        Ok(NodeCard {
            name: status.node.to_string(),
            dir: status.dir.display().to_string(),
            location: status.location.clone(),
            tone: findings.first().map_or(Tone::Good, |finding| finding.tone),
            word: findings.first().map_or("Backed up", |finding| finding.word),
            age: status.age_seconds(Level::Sealed).map(format::lengths),
            newest: newest.map(|newest| SnapshotRow::new(newest, scene.now)),
            restored: restored.map(|restored| Moment::new(restored.time, scene.now)),
            next: next.to_owned(),
            next_at: status
                .next_backup
                .filter(|_| !withheld)
                .map(|next| Moment::new(next, scene.now)),
            failures: status.failures,
            last_error: status.last_backup.as_ref().and_then(|last| LastError::of(last, scene.now)),
            seen: status.seen.map(|seen| Moment::new(seen, scene.now)),
            strip_text: match strip.len() {
                0 => "none has ended yet".to_owned(),
                all => format!("{failed} of {all} failed"),
            },
            strip,
            running: status.active.iter().find(|active| active.task == Task::Backup).map(
                |active| {
                    let percent = active.percent().map(|percent| format!(" {percent} %"));
                    format!("Backing up{}", percent.unwrap_or_default())
                },
            ),
            sizes: sizes(status),
            durations: Trend::of(&durations(&operations), "Durations"),
            took: status
                .last_backup
                .as_ref()
                .and_then(|last| Some(format::duration(last.started_at?, last.finished_at?))),
            findings,
        })
    }
}

/// The sizes of the last snapshots, oldest first.
fn sizes(status: &Status) -> Option<Trend> {
    let snapshots = status.snapshots.as_deref().unwrap_or_default();
    let shown = &snapshots[snapshots.len().saturating_sub(STRIP_MAX)..];
    let sizes: Vec<f64> = shown.iter().map(|snapshot| snapshot.bytes_total as f64).collect();
    Trend::of(&sizes, "Sizes")
}

/// How long the last backups took that were completed, in seconds, oldest first.
fn durations(operations: &[Operation]) -> Vec<f64> {
    let whole = operations.iter().filter(|operation| {
        operation.task == Task::Backup && operation.state == OperationState::Completed
    });
    let seconds = whole.filter_map(|operation| {
        let took = operation.finished_at?.as_nanos() - operation.started_at?.as_nanos();
        Some(took as f64 / 1e9)
    });
    let mut seconds: Vec<f64> = seconds.take(STRIP_MAX).collect();
    seconds.reverse();
    seconds
}

/// The last backups, oldest first.
fn strip(operations: &[Operation]) -> Vec<Bar> {
    let ended =
        |operation: &&Operation| operation.task == Task::Backup && operation.state.is_final();
    let mut bars: Vec<Bar> = operations
        .iter()
        .filter(ended)
        .take(STRIP_MAX)
        .map(|operation| {
            let when = Moment::new(operation.queued_at, operation.queued_at).text;
            let title = format!("{when} UTC: {}", operation.state.name());
            Bar { class: class(operation.state), title }
        })
        .collect();
    bars.reverse();
    bars
}

impl LastError {
    fn of(last: &Operation, now: Time) -> Option<LastError> {
        (last.state == OperationState::Failed).then(|| LastError {
            kind: standing::kind(last),
            reason: last.reason.clone().unwrap_or_default(),
            operation: last.id.to_string(),
            when: last.finished_at.map(|at| Moment::new(at, now)),
        })
    }
}

impl SnapshotRow {
    fn new(snapshot: &Snapshot, now: Time) -> SnapshotRow {
        let id = snapshot.snapshot.to_string();
        let (level, level_class) = match snapshot.level {
            Level::Failed => ("failed", "bad"),
            Level::Sealed => ("sealed", "plain"),
            Level::Restored => ("restored", "good"),
        };
        SnapshotRow {
            short: id.chars().take(SHORT_ID).collect(),
            id,
            time: Moment::new(snapshot.time, now),
            level,
            level_class,
            size: format::bytes(snapshot.bytes_total),
            stored: format::bytes(snapshot.bytes_stored),
            marks: {
                let marks = snapshot.marks.iter().map(|(k, v)| (k.clone(), v.to_string()));
                let channels = ("channels".to_owned(), snapshot.channels.to_string());
                marks.chain((snapshot.channels > 0).then_some(channels)).collect()
            },
            tags: snapshot.tags.clone().into_iter().collect(),
        }
    }
}

fn class(state: OperationState) -> &'static str {
    match state {
        OperationState::Completed => "good",
        OperationState::Failed => "bad",
        OperationState::Cancelled => "idle",
        OperationState::Queued | OperationState::Running => "live",
    }
}

impl OperationRow {
    fn new(operation: &Operation, now: Time) -> OperationRow {
        let began = operation.started_at.unwrap_or(operation.queued_at);
        let took = operation.finished_at.map(|end| format::duration(began, end));
        let reason = operation
            .reason
            .clone()
            .map(|reason| (operation.kind.as_ref().map(|_| standing::kind(operation)), reason));
        OperationRow {
            id: operation.id.to_string(),
            node: operation.node.to_string(),
            task: match operation.task {
                Task::Backup => "Backup",
                Task::Check => "Check",
                Task::CheckData => "Check of all data",
                Task::RestoreTest => "Restore test",
            },
            state: operation.state.name(),
            class: class(operation.state),
            started: operation.started_at.map(|at| Moment::new(at, now)),
            finished: operation.finished_at.map(|at| Moment::new(at, now)),
            took,
            passed: (operation.bytes_done > 0).then(|| format::bytes(operation.bytes_done)),
            reason,
        }
    }
}

fn running(scene: &Scene, status: &Status) -> Vec<Running> {
    status.active.iter().map(|operation| Running::new(operation, scene)).collect()
}

impl Running {
    fn new(operation: &Operation, scene: &Scene) -> Running {
        let total = operation.bytes_total;
        let row = OperationRow::new(operation, scene.now);
        Running {
            stage: operation.stage.clone(),
            percent: operation.percent(),
            done: format::bytes(operation.bytes_done),
            total: (total > 0).then(|| format::bytes(total)),
            cancel: scene.server.cancel(&row.id),
            row,
        }
    }
}

/// What is held back of a node, with what is known about it.
fn held(agent: &Agent, status: &Status) -> Result<Vec<HeldRow>> {
    // A latch that can't be read shows as a finding of the node.
    if status.quarantined.is_none_or(|number| number == 0) {
        return Ok(Vec::new());
    }
    let latch = Latch::read(agent.dir())?;
    let recorded = |id: &str| latch.as_ref().and_then(|latch| latch.channels.get(id));
    let rows = agent.quarantine()?.into_iter().filter(|held| held.state.holds());
    Ok(rows
        .take(HELD_MAX)
        .map(|held| {
            let (state, class) = match held.state {
                HeldState::Blocked => ("blocked", "bad"),
                HeldState::Withheld => ("withheld", "warn"),
                _ => ("waiting", "warn"),
            };
            HeldRow {
                node: status.node.to_string(),
                evidence: recorded(&held.id).map(evidence).unwrap_or_default(),
                show: commands::show(status, &held.id),
                release: commands::release(status, &held.id),
                state,
                class,
                reason: held.reason,
                id: held.id,
            }
        })
        .collect())
}

/// The numbers on which a verdict stands, each source in one line.
fn evidence(recorded: &Recorded) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(ours) = &recorded.ours {
        let signed = ours.signed.map_or("unknown".to_owned(), |signed| signed.to_string());
        lines.push(format!(
            "node: signed {signed}, revoked {}, received {}{}",
            ours.revoked,
            ours.received,
            closing(ours.closing)
        ));
    }
    let Some(evidence) = &recorded.evidence else { return lines };
    if let Some(witness) = &evidence.witness {
        lines.push(format!(
            "witness: signed {}, revoked {}, received {}{}",
            witness.signed,
            witness.revoked,
            witness.received,
            closing(witness.closing)
        ));
    }
    if let Some(report) = &evidence.report {
        lines.push(format!(
            "peer: has {} of our revocations, {} of our signatures",
            report.revocations_held, report.signatures_taken
        ));
    }
    if let Some(backup) = &evidence.backup {
        let signed = backup.signed.map_or("unknown".to_owned(), |signed| signed.to_string());
        lines.push(format!(
            "backup: signed {signed}, revoked {}, received {}",
            backup.revoked, backup.received
        ));
    }
    lines
}

fn closing(closing: bool) -> &'static str {
    if closing { ", closing" } else { "" }
}

impl TestRow {
    fn new(status: &Status) -> TestRow {
        let last = status.last_restore_test.as_ref();
        let failed = last.filter(|last| last.state == OperationState::Failed);
        let (class, result) = match last {
            None => ("warn", "never tested"),
            Some(_) if failed.is_some() => ("bad", "failed"),
            Some(_) => ("good", "passed"),
        };
        let moment = |time| Moment::new(time, status.now);
        TestRow {
            node: status.node.to_string(),
            class,
            result,
            why: failed.map(|failed| {
                let reason = failed.reason.as_deref().unwrap_or_default();
                format!("{}: {reason}", standing::kind(failed))
            }),
            last: last.and_then(|last| {
                last.finished_at.map(|finished| (last.id.to_string(), moment(finished)))
            }),
            passed: status.restore_tested.map(moment),
            snapshot: last.and_then(|last| last.snapshot).map(|id| id.to_string()),
            what: format!("Test {} now:", status.node),
            command: commands::test_restore(status),
        }
    }
}
