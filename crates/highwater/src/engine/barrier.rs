//! The capture of all parts: databases first, in the order that gives them one instant where there
//! can be one, plain files last.

use std::collections::BTreeMap;
use std::time::Duration;

use super::points::Points;
use super::{
    Barrier, CaptureOptions, Captured, EngineKind, FoundPart, Layout, PartCapture, Refusal, files,
    freeze, lock, others, rocksdb,
};
use crate::env::Env;
use crate::error::{Error, Result};

/// The error that a refusal makes of a backup.
pub(super) fn refused(refusal: &Refusal) -> Error {
    Error::new(refusal.kind, refusal.problem.clone())
        .entry(refusal.entry.clone())
        .hint(refusal.hint.clone())
}

/// Takes one image of all parts of `layout`, while the node holds its writers where it can.
pub(super) fn capture(layout: &Layout, options: &CaptureOptions, env: &Env) -> Result<Captured> {
    freeze::collect(layout)?;
    if let Some(freeze) = &options.freeze {
        if options.hold.is_some() || !options.hooks.is_empty() || !options.points.is_empty() {
            return Err(Error::input(
                "a node is captured by its hooks or by a freeze, not by both",
            ));
        }
        return freeze::capture(layout, freeze, env);
    }
    let Some(hold) = &options.hold else {
        return take(layout, options, BTreeMap::new(), env);
    };
    let begin = env.monotonic();
    let mut captured = None;
    hold(&mut |marks| captured = Some(take(layout, options, marks, env))).map_err(|error| {
        Error::unavailable("the node could not hold its writers for the capture").source(error)
    })?;
    let pause = env.monotonic() - begin;
    match captured {
        Some(captured) => captured.map(|captured| Captured { pause, ..captured }),
        None => Err(Error::input("the node's hold hook did not call the capture")),
    }
}

fn take(
    layout: &Layout,
    options: &CaptureOptions,
    marks: BTreeMap<String, u64>,
    env: &Env,
) -> Result<Captured> {
    if let Some(refusal) = layout.refusals.first() {
        return Err(refused(refusal));
    }
    hooks_fit(layout, options)?;
    let databases = layout.parts.iter().filter(|part| part.engine != EngineKind::Files).count();
    // Refused before a hook runs or a lock is taken, where it can be known.
    let hooked = options.hooks.len();
    let sqlite: Vec<&FoundPart> =
        layout.parts.iter().filter(|part| part.engine == EngineKind::Sqlite).collect();
    let mut barrier = common_instant(databases, hooked, sqlite.len(), 0, Barrier::Single);
    if options.hold.is_some() && databases > 1 {
        barrier = Barrier::Hook;
    }
    allowed(barrier, databases, options)?;

    let points = Points::ask(&options.points, layout)?;
    let mut slots: Slots = layout.parts.iter().map(|_| None).collect();
    let (pause, moving) = begin_held(layout, options, &mut slots, env)?;
    let live = moving.len();
    if live > 0 && options.hold.is_none() {
        barrier = common_instant(databases, hooked, sqlite.len(), live, barrier);
        allowed(barrier, databases, options)?;
    }
    for place in moving {
        slots[place] = Some(rocksdb::live(&layout.held, &layout.parts[place], env)?);
    }
    if !sqlite.is_empty() {
        let (captures, instant) = begin_sqlite(layout, &sqlite, options, env)?;
        if options.hold.is_none() {
            barrier = common_instant(databases, hooked, sqlite.len(), live, instant);
            allowed(barrier, databases, options)?;
        }
        let places = layout.parts.iter().zip(&mut slots);
        let places = places.filter(|(part, _)| part.engine == EngineKind::Sqlite);
        for ((_, slot), capture) in places.zip(captures) {
            *slot = Some(capture);
        }
    }
    let (points, moved) = points.settle()?;
    let time = env.now();
    for (slot, part) in slots.iter_mut().zip(&layout.parts) {
        if part.engine == EngineKind::Files {
            *slot = Some(files::begin(&layout.held, part, env)?);
        }
    }
    let parts: Option<Vec<_>> = slots.into_iter().collect();
    let parts = parts.ok_or_else(|| Error::bug("a part was captured by no engine"))?;
    let warnings = warnings(barrier, databases).into_iter().chain(moved).collect();
    let layout = layout.clone();
    Ok(Captured { parts, layout, barrier, time, pause, marks, points, warnings })
}

/// The captures that have begun, in the order of the parts.
type Slots = Vec<Option<Box<dyn PartCapture>>>;

/// Begins with what a hook gives or a lock holds, before the instant of all else. How long the node was kept
/// waiting, and the places of those that are in use and have to be captured live.
fn begin_held(
    layout: &Layout,
    options: &CaptureOptions,
    slots: &mut Slots,
    env: &Env,
) -> Result<(Duration, Vec<usize>)> {
    let (mut pause, mut moving) = (Duration::ZERO, Vec::new());
    for (place, part) in layout.parts.iter().enumerate() {
        match part.engine {
            EngineKind::Sqlite | EngineKind::Files => continue,
            EngineKind::RocksDb => {
                let hook = options.hooks.iter().find(|(name, _)| *name == part.name);
                let hook = hook.map(|(_, hook)| hook);
                match rocksdb::begin(&layout.held, part, hook, env)? {
                    rocksdb::Begun::Held(capture, held) => {
                        pause += held;
                        slots[place] = Some(capture);
                    }
                    rocksdb::Begun::InUse if options.offline => {
                        return Err(lock::rocksdb_in_use(&layout.held.at(&part.root), &part.name));
                    }
                    rocksdb::Begun::InUse => moving.push(place),
                }
            }
            _ => slots[place] = Some(others::begin(&layout.held, part, env)?),
        }
    }
    Ok((pause, moving))
}

/// The instant that all databases share, of which so many have a hook, so many are SQLite's, these with
/// `sqlite_instant` among themselves, and so many are captured live. All others are locked and don't move.
fn common_instant(
    databases: usize,
    hooked: usize,
    sqlite: usize,
    live: usize,
    sqlite_instant: Barrier,
) -> Barrier {
    match (hooked, sqlite, live) {
        (0, 0, 1) => Barrier::Live,
        _ if databases <= 1 => Barrier::Single,
        (0, 0, 0) | (1, 0, 0) | (0, 1, 0) => Barrier::Single,
        (0, _, 0) => sqlite_instant,
        (_, 0, 0) => Barrier::Hook,
        _ => Barrier::None,
    }
}

fn allowed(barrier: Barrier, databases: usize, options: &CaptureOptions) -> Result<()> {
    if barrier != Barrier::None || databases <= 1 || options.allow_no_barrier {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "the {databases} databases of this node can't be captured at one instant"
    ))
    .hint(
        "freeze the node (--freeze PID), stop it for the time of the backup, or accept an instant for \
         each (--no-barrier)",
    ))
}

fn warnings(barrier: Barrier, databases: usize) -> Vec<String> {
    if barrier == Barrier::None && databases > 1 {
        vec![format!("each of the {databases} databases was captured at an instant of its own")]
    } else {
        Vec::new()
    }
}

/// A hook that fits no database would leave the one that it was meant for without.
fn hooks_fit(layout: &Layout, options: &CaptureOptions) -> Result<()> {
    for (index, (name, _)) in options.hooks.iter().enumerate() {
        let twice = options.hooks[..index].iter().any(|(earlier, _)| earlier == name);
        let known = layout
            .parts
            .iter()
            .any(|part| part.name == *name && part.engine == EngineKind::RocksDb);
        if !known || twice {
            let problem = if twice { "has two checkpoint hooks" } else { "is no RocksDB here" };
            let names: Vec<&str> = layout
                .parts
                .iter()
                .filter(|part| part.engine == EngineKind::RocksDb)
                .map(|part| part.name.as_str())
                .collect();
            return Err(Error::input(format!("{name} {problem}"))
                .entry(name.clone())
                .hint(format!("register one hook for each of: {}", names.join(", "))));
        }
    }
    Ok(())
}

#[cfg(feature = "sqlite")]
pub(super) fn begin_sqlite(
    layout: &Layout,
    parts: &[&FoundPart],
    options: &CaptureOptions,
    env: &Env,
) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
    super::sqlite::begin_all(&layout.held, parts, options, env)
}

#[cfg(not(feature = "sqlite"))]
pub(super) fn begin_sqlite(
    _: &Layout,
    parts: &[&FoundPart],
    _: &CaptureOptions,
    _: &Env,
) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
    let name = parts.first().map_or("", |part| part.name.as_str());
    Err(Error::input(format!("{name}: this build captures no SQLite databases")).entry(name))
}

#[cfg(test)]
mod tests;
