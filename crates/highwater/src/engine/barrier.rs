//! The capture of all parts: databases first, in the order that gives them one instant where there
//! can be one, plain files last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::engines::{Begun, Database, Engine, InUse};
use super::points::Points;
use super::{
    Barrier, CaptureOptions, Captured, EngineKind, FoundPart, Layout, PartCapture, files, freeze,
};
use crate::env::Env;
use crate::error::{Error, Remedy, Result};

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
        Error::unavailable("the node could not hold its writers for the capture").with_source(error)
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
        return Err(refusal.clone());
    }
    hooks_fit(layout, options)?;
    let databases: Vec<&FoundPart> =
        layout.parts.iter().filter(|part| part.engine != EngineKind::FILES).collect();
    let (count, hooked) = (databases.len(), options.hooks.len());
    // Refused before a hook runs or a lock is taken, where it can be known.
    let mut moving = Moving::default();
    for part in databases {
        let engine = layout.engines().of(part)?;
        if engine.in_use() == InUse::Together {
            moving.add(engine, part);
        }
    }
    let held = options.hold.is_some() && count > 1;
    let instant = |moving: &Moving<'_>| match held {
        true => Barrier::Hook,
        false => common_instant(count, hooked, &moving.instants()),
    };
    allowed(instant(&moving), count, options)?;

    let points = Points::ask(&options.points, layout)?;
    let mut captures = BTreeMap::new();
    let pause = begin_held(layout, options, &mut captures, &mut moving, env)?;
    // With a hold hook nobody writes, whoever has what open.
    allowed(instant(&moving), count, options)?;
    moving.begin(layout, options, &mut captures, env)?;
    let barrier = instant(&moving);
    allowed(barrier, count, options)?;
    let (points, moved) = points.settle()?;
    let time = env.now();
    let mut parts = Vec::with_capacity(layout.parts.len());
    for part in &layout.parts {
        parts.push(match captures.remove(part.name.as_str()) {
            Some(capture) => capture,
            None if part.engine == EngineKind::FILES => {
                files::begin(layout, part, &options.stores, env)?
            }
            None => return Err(Error::bug("a part was captured by no engine")),
        });
    }
    let warnings = warnings(barrier, count).into_iter().chain(moved).collect();
    let layout = layout.clone();
    Ok(Captured { parts, layout, barrier, time, pause, marks, points, warnings })
}

/// The captures that have begun, by the names of their parts.
type Captures<'a> = BTreeMap<&'a str, Box<dyn PartCapture>>;

/// Databases that are captured while they are written: those of one engine together.
#[derive(Default)]
struct Moving<'a> {
    groups: Vec<Group<'a>>,
}

struct Group<'a> {
    engine: &'a Arc<dyn Engine>,
    parts: Vec<&'a FoundPart>,
    /// The instant that they share, once they are captured.
    instant: Option<Barrier>,
}

impl<'a> Moving<'a> {
    fn add(&mut self, engine: &'a Arc<dyn Engine>, part: &'a FoundPart) {
        match self.groups.iter_mut().find(|group| group.engine.kind() == engine.kind()) {
            Some(group) => group.parts.push(part),
            None => self.groups.push(Group { engine, parts: vec![part], instant: None }),
        }
    }

    /// What instant the databases of each engine share; of those that are not captured yet, the best that
    /// can come of it.
    fn instants(&self) -> Vec<Barrier> {
        let of = |group: &Group<'_>| match (group.engine.in_use(), group.parts.len()) {
            (InUse::Together, _) => Barrier::Single,
            (_, 1) => Barrier::Live,
            _ => Barrier::None,
        };
        self.groups.iter().map(|group| group.instant.unwrap_or_else(|| of(group))).collect()
    }

    /// Begins with those that have an instant of their own.
    fn begin(
        &mut self,
        layout: &'a Layout,
        options: &CaptureOptions,
        captures: &mut Captures<'a>,
        env: &Env,
    ) -> Result<()> {
        self.groups.sort_by_key(|group| group.engine.in_use());
        for Group { engine, parts, instant } in &mut self.groups {
            let databases: Vec<Database<'_>> =
                parts.iter().map(|part| Database::of(layout, part)).collect::<Result<_>>()?;
            let (begun, shared) = engine.begin_in_use(&databases, options, env)?;
            if begun.len() != parts.len() {
                return Err(Error::bug(format!("{} captured not all databases", engine.kind())));
            }
            captures.extend(parts.iter().map(|part| part.name.as_str()).zip(begun));
            *instant = Some(shared);
        }
        Ok(())
    }
}

/// Begins with what a hook gives or a lock holds, before the instant of all else. How long the node was kept
/// waiting; those that are in use are to be captured while they move.
fn begin_held<'a>(
    layout: &'a Layout,
    options: &CaptureOptions,
    captures: &mut Captures<'a>,
    moving: &mut Moving<'a>,
    env: &Env,
) -> Result<Duration> {
    let mut pause = Duration::ZERO;
    for part in layout.parts.iter().filter(|part| part.engine != EngineKind::FILES) {
        let database = Database::of(layout, part)?;
        if database.engine.in_use() == InUse::Together {
            continue;
        }
        match database.engine.begin(&database, options, env)? {
            Begun::Held(capture) => drop(captures.insert(&part.name, capture)),
            Begun::Hooked(capture, held) => {
                pause += held;
                captures.insert(&part.name, capture);
            }
            Begun::InUse => moving.add(database.engine, part),
        }
    }
    Ok(pause)
}

/// Begins the capture of one database as a backup would, and gives it up.
pub(super) fn attempt(layout: &Layout, part: &FoundPart, env: &Env) -> Result<()> {
    if part.engine == EngineKind::FILES {
        return Ok(());
    }
    let (database, options) = (Database::of(layout, part)?, CaptureOptions::default());
    let engine = database.engine;
    let begun = match engine.in_use() {
        InUse::Together => Begun::InUse,
        InUse::Refused | InUse::Alone => engine.begin(&database, &options, env)?,
    };
    match begun {
        Begun::Held(_) | Begun::Hooked(..) => Ok(()),
        Begun::InUse => engine.begin_in_use(&[database], &options, env).map(drop),
    }
}

/// The instant that all databases share, of which so many have a hook; each engine whose databases move
/// has one of these for all of its own. All others are locked and don't move.
fn common_instant(databases: usize, hooked: usize, moving: &[Barrier]) -> Barrier {
    match (hooked, moving) {
        (0, [Barrier::Live]) => Barrier::Live,
        _ if databases <= 1 => Barrier::Single,
        (0, [instant]) => *instant,
        (0 | 1, []) => Barrier::Single,
        (_, []) => Barrier::Hook,
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
    .with_remedy(Remedy::Freeze(None))
    .with_remedy("stop the node for the time of the backup")
    .with_remedy(Remedy::NoBarrier))
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
    let takes_hook = |part: &&FoundPart| {
        layout.engines().get(part.engine).is_some_and(|engine| engine.takes_hook())
    };
    let names = || layout.parts.iter().filter(takes_hook).map(|part| part.name.as_str());
    for (index, (name, _)) in options.hooks.iter().enumerate() {
        let twice = options.hooks[..index].iter().any(|(earlier, _)| earlier == name);
        if names().any(|known| known == name) && !twice {
            continue;
        }
        let problem = if twice {
            "has two checkpoint hooks"
        } else {
            "is no database here that a hook can make a checkpoint of"
        };
        return Err(Error::input(format!("{name} {problem}"))
            .with_entry(name.clone())
            .with_remedy(format!(
                "register one hook for each of: {}",
                names().collect::<Vec<_>>().join(", ")
            )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
