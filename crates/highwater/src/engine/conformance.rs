//! What every engine promises, as a suite that each of them passes: [`run`] panics on a broken
//! promise.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{
    CaptureOptions, Captured, Depth, DiscoverOptions, EngineKind, Engines, EntryType, Layout,
    PartCapture, Piece, SourceEntry, capture, check, discover,
};
use crate::env::Env;
use crate::error::{Error, Kind, Result};

/// A node directory with one part of the engine under test.
pub trait Fixture {
    /// The engine under test.
    fn engine(&self) -> EngineKind;

    /// Makes the node's part in the empty directory `dir`.
    fn create(&self, dir: &Path);

    /// Opens the part for writing, changes it durably and closes it; panics where that is not
    /// possible (somebody holds its lock).
    fn change(&self, dir: &Path);

    /// The engines by which the node is looked at: the one under test among them.
    fn engines(&self) -> Engines {
        Engines::default()
    }

    /// How it is captured: hooks, say. What a hook needs (an open database) lives in the options.
    fn options(&self, dir: &Path) -> CaptureOptions {
        let _ = dir;
        CaptureOptions::default()
    }

    /// Lets another process use the part until the value is dropped; `None` where the engine is
    /// captured all the same.
    fn hold(&self, dir: &Path) -> Option<Box<dyn Any>>;

    /// Whether a copy equals the source byte for byte, and another capture is refused meanwhile.
    fn exclusive(&self) -> bool {
        true
    }

    /// Panics unless the restored copy in `dir` holds what [`Fixture::create`] wrote and, where
    /// `changed`, what [`Fixture::change`] did. It may open the copy for writing.
    fn verify(&self, dir: &Path, changed: bool) {
        let _ = (dir, changed);
    }
}

/// Runs the suite in the empty directory `scratch`.
pub fn run(fixture: &dyn Fixture, scratch: &Path) {
    let node = scratch.join("node");
    make(&node);
    fixture.create(&node);
    captures_without_a_trace(fixture, &node, &scratch.join("copy"));
    knows_what_is_unchanged(fixture, &node);
    gives_up_its_locks(fixture, &node);
    refuses_what_is_in_use(fixture, &node);
    captures_what_changed(fixture, &node, &scratch.join("changed"));
}

fn captures_without_a_trace(fixture: &dyn Fixture, node: &Path, copy: &Path) {
    let layout = looked_at(fixture, node);
    let options = fixture.options(node);
    // A first capture may create a lock file that a copied database does not have.
    finish(taken(&layout, &options));
    let before = digest(node);
    let mut captured = taken(&layout, &options);
    if fixture.exclusive() {
        let second = capture(&layout, &options, &Env::system()).err();
        assert_eq!(
            second.map(|error| error.kind()),
            Some(Kind::Conflict),
            "captured twice at once"
        );
    }
    for part in &mut captured.parts {
        assert_in_order(part.entries());
        store(part.as_mut(), copy);
        stops_when_told(part.as_mut());
    }
    finish(captured);
    if options.hooks.is_empty() {
        assert_eq!(digest(node), before, "a capture left a trace in the source");
    }
    drop(options);
    assert_eq!(work_dirs(node), Vec::<PathBuf>::new(), "a capture left its work directory");

    if fixture.exclusive() {
        assert_same_content(node, copy);
    }
    let restored = digest(copy);
    for depth in [Depth::Open, Depth::Full] {
        for part in &layout.parts {
            must(
                check(copy, part.engine, &part.root, depth, &fixture.engines()),
                "a restored copy fails its check",
            );
        }
    }
    assert_eq!(digest(copy), restored, "a check changed the restored copy");
    fixture.verify(copy, false);
}

fn knows_what_is_unchanged(fixture: &dyn Fixture, node: &Path) {
    let identities = || {
        let options = fixture.options(node);
        let captured = taken(&looked_at(fixture, node), &options);
        let entries = captured.parts.iter().flat_map(|part| part.entries().to_vec());
        let known: BTreeMap<_, _> = entries
            .filter_map(|entry| entry.identity.map(|identity| (entry.path, identity)))
            .collect();
        finish(captured);
        known
    };
    let (first, second) = (identities(), identities());
    for (path, identity) in &first {
        if let Some(later) = second.get(path) {
            assert_eq!(identity, later, "{path} did not change, its identity did");
        }
    }
}

fn gives_up_its_locks(fixture: &dyn Fixture, node: &Path) {
    let options = fixture.options(node);
    drop(taken(&looked_at(fixture, node), &options));
    finish(taken(&looked_at(fixture, node), &options));
}

fn refuses_what_is_in_use(fixture: &dyn Fixture, node: &Path) {
    let Some(held) = fixture.hold(node) else { return };
    let layout = must(discover(node, &by(fixture)), "a node in use is not found");
    let refused = capture(&layout, &fixture.options(node), &Env::system()).err();
    let Some(refused) = refused else { panic!("a database in use was captured") };
    assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    assert!(refused.hint().is_some(), "a conflict names the ways out");
    drop(held);
}

fn captures_what_changed(fixture: &dyn Fixture, node: &Path, copy: &Path) {
    fixture.change(node);
    let options = fixture.options(node);
    let layout = looked_at(fixture, node);
    let mut captured = taken(&layout, &options);
    for part in &mut captured.parts {
        store(part.as_mut(), copy);
    }
    finish(captured);
    for part in &layout.parts {
        must(
            check(copy, part.engine, &part.root, Depth::Full, &fixture.engines()),
            "a restored copy fails its check",
        );
    }
    fixture.verify(copy, true);
}

fn by(fixture: &dyn Fixture) -> DiscoverOptions {
    DiscoverOptions { engines: fixture.engines(), ..DiscoverOptions::default() }
}

fn looked_at(fixture: &dyn Fixture, node: &Path) -> Layout {
    let layout = must(discover(node, &by(fixture)), "the node is not found");
    assert!(layout.refusals.is_empty(), "refused: {:?}", layout.refusals);
    let found = layout.parts.iter().any(|part| part.engine == fixture.engine());
    assert!(found, "no part of {:?} was found: {:?}", fixture.engine(), layout.parts);
    layout
}

fn taken(layout: &Layout, options: &CaptureOptions) -> Captured {
    let captured = must(capture(layout, options, &Env::system()), "the capture fails");
    let expected: Vec<String> = layout.parts.iter().map(|part| part.name.clone()).collect();
    let names: Vec<&str> = captured.parts.iter().map(|part| part.name()).collect();
    assert_eq!(names, expected);
    captured
}

fn finish(captured: Captured) {
    for part in captured.parts {
        must(part.finish(), "the capture does not end well");
    }
}

fn assert_in_order(entries: &[SourceEntry]) {
    for pair in entries.windows(2) {
        assert!(pair[0].path < pair[1].path, "{} before {}", pair[0].path, pair[1].path);
    }
    for entry in entries {
        let holes: u64 = entry.holes.iter().map(|(_, length)| length).sum();
        assert!(holes <= entry.size, "{} has more holes than bytes", entry.path);
        assert!(entry.kind == EntryType::File || entry.size == 0, "{} has a size", entry.path);
    }
}

/// Writes what a part streams below `copy`, and counts it.
fn store(part: &mut dyn PartCapture, copy: &Path) {
    make(copy);
    for (index, entry) in part.entries().to_vec().iter().enumerate() {
        let path = entry.path.under(copy);
        match &entry.kind {
            EntryType::Dir => make(&path),
            EntryType::File => {
                let mut content = Vec::new();
                let streamed = part.stream(index, &mut |piece| {
                    match piece {
                        Piece::Data(bytes) => content.extend_from_slice(bytes),
                        Piece::Hole(length) => {
                            let length = usize::try_from(length).unwrap_or(usize::MAX);
                            content.resize(content.len() + length, 0);
                        }
                    }
                    Ok(())
                });
                must(streamed, "an entry does not stream");
                assert_eq!(content.len() as u64, entry.size, "{} has another size", entry.path);
                if let Some(parent) = path.parent() {
                    make(parent);
                }
                must(fs::write(&path, content).map_err(|e| Error::io("write", e)), "can't write");
            }
            _ => {}
        }
    }
}

/// An error of the sink ends the stream with that error.
fn stops_when_told(part: &mut dyn PartCapture) {
    let Some(index) = part.entries().iter().position(|entry| entry.size > 0) else { return };
    let stopped = part.stream(index, &mut |_| Err(Error::interrupted())).err();
    assert_eq!(stopped.map(|error| error.kind()), Some(Kind::Interrupted));
}

/// Every entry below `dir`: mode, modification time and a hash of the content.
fn digest(dir: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, String)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let seen = must(fs::symlink_metadata(&path).map_err(|e| Error::io("stat", e)), "no entry");
        // Whoever reads a SQLite database takes part in its shared index, which holds no data.
        if path.to_string_lossy().ends_with("-shm") {
            continue;
        }
        let content = if seen.is_file() && seen.len() > 0 { hash(&path) } else { String::new() };
        // A checkpoint comes and goes beside the database, which its directory's time tells.
        let times = if seen.is_dir() { (0, 0) } else { (seen.mtime(), seen.mtime_nsec()) };
        if seen.is_dir() {
            let entries = must(fs::read_dir(&path).map_err(|e| Error::io("list", e)), "no list");
            pending.extend(entries.flatten().map(|entry| entry.path()));
        }
        found.insert(path, (seen.mode(), times.0, times.1, content));
    }
    found
}

fn work_dirs(node: &Path) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".highwater-"))
    };
    digest(node).into_keys().filter(ours).collect()
}

/// Each file of the copy is the source's.
fn assert_same_content(node: &Path, copy: &Path) {
    for (path, (_, _, _, content)) in digest(copy) {
        if let (true, Ok(inner)) = (path.is_file(), path.strip_prefix(copy)) {
            let source = node.join(inner);
            let same = fs::symlink_metadata(&source).is_ok_and(|seen| seen.len() == 0)
                || hash(&source) == content;
            assert!(same, "{} differs from its source", inner.display());
        }
    }
}

fn hash(path: &Path) -> String {
    blake3::hash(&fs::read(path).unwrap_or_default()).to_hex().to_string()
}

fn make(dir: &Path) {
    must(fs::create_dir_all(dir).map_err(|e| Error::io("mkdir", e)), "can't make a directory");
}

fn must<T>(result: Result<T>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error} ({:?})", error.hint()))
}

#[cfg(test)]
pub(crate) mod tests;
