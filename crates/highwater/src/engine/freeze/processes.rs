//! Which processes belong to a node: those that can write a file of it, by an open descriptor or
//! through their memory. Read from `/proc`; files are known by device and inode, so that a container's
//! paths don't matter.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::super::{EntryType, Layout, metadata, process};
use crate::durable;
use crate::error::{Error, Remedy, Result};
use crate::ids::RelPath;

/// The longest line of parents above a process that is followed.
const PARENTS_MAX: u32 = 1024;

/// The regular files of a node, as they are at one look.
pub(super) struct Files {
    by_id: HashMap<(u64, u64), RelPath>,
    by_inode: HashMap<u64, (u64, RelPath)>,
    /// Path and stamp of each.
    pub(super) stamps: Vec<(RelPath, metadata::Stamp)>,
}

impl Files {
    /// Looks at every file of `layout`. One that a running node has just removed is passed over.
    pub(super) fn of(layout: &Layout) -> Result<Files> {
        let mut files =
            Files { by_id: HashMap::new(), by_inode: HashMap::new(), stamps: Vec::new() };
        for path in layout.parts.iter().flat_map(|part| &part.entries) {
            let seen = match layout.held.at(path).stat() {
                Ok(Some(seen)) if durable::is_file(&seen) => seen,
                Ok(_) => continue,
                Err(errno) => {
                    return Err(Error::io("can't look at it", errno).with_entry(path.to_string()));
                }
            };
            let stamp = metadata::Stamp::of(&seen);
            files.by_id.insert(stamp.id, path.clone());
            files.by_inode.insert(stamp.id.1, (stamp.id.0, path.clone()));
            files.stamps.push((path.clone(), stamp));
        }
        Ok(files)
    }
}

impl Files {
    /// An error where a file is no longer as it was. Links that were made to a file change nothing.
    pub(super) fn unmoved(&self, layout: &Layout) -> Result<()> {
        for (path, before) in &self.stamps {
            let now = metadata::stamp(&layout.held.at(path));
            if !now.is_ok_and(|now| now.same_content(before)) {
                return Err(Error::conflict(format!(
                    "{path} changed although all that are seen to write there were stopped"
                ))
                .with_entry(path.to_string())
                .with_remedy("find out who writes it; as root, all processes are seen"));
            }
        }
        Ok(())
    }
}

/// A process that can write files of the node.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) pid: u32,
    pub(super) command: String,
    /// One of the files that it has open; of one that only the caller names, the node directory.
    pub(super) file: RelPath,
    /// Those that it has mapped so that a store into its memory changes them.
    pub(super) mapped: BTreeSet<RelPath>,
}

impl Writer {
    /// A process of which the caller says that it writes the node: it opens each file for a moment.
    pub(super) fn said(pid: u32) -> Writer {
        let command = process::command(pid);
        Writer { pid, command, file: RelPath::root(), mapped: BTreeSet::new() }
    }

    /// What it can write.
    pub(super) fn what(&self) -> String {
        match self.file == RelPath::root() {
            true => "the node".to_owned(),
            false => self.file.to_string(),
        }
    }

    pub(super) fn named(&self) -> String {
        format!("{} (pid {})", self.command, self.pid)
    }
}

/// What one look at all processes shows.
pub(super) struct Look {
    /// Those that can write, by process id.
    pub(super) writers: BTreeMap<u32, Writer>,
    /// Those that this user may not look into, and that hold a lock on a file of the node.
    pub(super) hidden: Vec<String>,
}

/// Looks at all processes but this one. A file that this one has open is a conflict: to close a
/// descriptor of it would give up every lock that this process holds on it.
pub(super) fn look(files: &Files) -> Result<Look> {
    if let Some(path) = process::own_files()?.iter().find_map(|own| files.by_id.get(own)) {
        return Err(Error::conflict(format!("{path} is open in this very process"))
            .with_entry(path.to_string())
            .with_remedy("close it, let output go elsewhere")
            .with_remedy(Remedy::Exclude));
    }
    let listed =
        fs::read_dir("/proc").map_err(|source| Error::io("can't list processes", source))?;
    let mut writers = BTreeMap::new();
    let mut closed = BTreeSet::new();
    for entry in listed {
        let entry = entry.map_err(|source| Error::io("can't list processes", source))?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        match written_by(&entry.path(), files) {
            Ok(written) => {
                let Some(file) = written.open.or_else(|| written.mapped.first().cloned()) else {
                    continue;
                };
                let command = process::command(pid);
                writers.insert(pid, Writer { pid, command, file, mapped: written.mapped });
            }
            Err(source) if source.kind() == ErrorKind::PermissionDenied => {
                closed.insert(pid);
            }
            // It has ended.
            Err(_) => {}
        }
    }
    let hidden = if closed.is_empty() { Vec::new() } else { lockers(files, &closed) };
    Ok(Look { writers, hidden })
}

struct Written {
    open: Option<RelPath>,
    mapped: BTreeSet<RelPath>,
}

fn written_by(process: &Path, files: &Files) -> std::io::Result<Written> {
    let mut open = None;
    for descriptor in fs::read_dir(process.join("fd"))? {
        let descriptor = descriptor?.path();
        // Closed meanwhile, where there is nothing.
        let Ok(found) = fs::metadata(&descriptor) else { continue };
        if let Some(path) = files.by_id.get(&(found.dev(), found.ino()))
            // The link's own mode tells how the descriptor was opened.
            && fs::symlink_metadata(&descriptor).is_ok_and(|link| link.mode() & 0o200 != 0)
        {
            open = Some(path.clone());
            break;
        }
    }
    let mut mapped = BTreeSet::new();
    for mapping in shared(&fs::read_to_string(process.join("maps")).unwrap_or_default()) {
        if let Some((device, path)) = files.by_inode.get(&mapping.inode)
            // A file system with several devices shows another one here than `stat` does.
            && (mapping.device == *device || mapping.name == path.name().to_string_lossy())
        {
            mapped.insert(path.clone());
        }
    }
    Ok(Written { open, mapped })
}

/// A line of `maps` about a file that stores through memory change.
struct Mapping<'a> {
    device: u64,
    inode: u64,
    name: &'a str,
}

fn shared(maps: &str) -> impl Iterator<Item = Mapping<'_>> {
    maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let modes = fields.nth(1)?.as_bytes();
        if modes.get(1) != Some(&b'w') || modes.get(3) != Some(&b's') {
            return None;
        }
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        let major = u32::from_str_radix(major, 16).ok()?;
        let minor = u32::from_str_radix(minor, 16).ok()?;
        let inode = fields.next()?.parse().ok()?;
        let name = line.trim_end().rsplit('/').next()?;
        Some(Mapping { device: rustix::fs::makedev(major, minor), inode, name })
    })
}

/// Those of `closed` that hold a lock on a file of the node: the kernel tells everybody's locks.
fn lockers(files: &Files, closed: &BTreeSet<u32>) -> Vec<String> {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut found = BTreeMap::new();
    for line in locks.lines() {
        let fields: Vec<&str> = line.split_whitespace().filter(|field| *field != "->").collect();
        let [_, _, _, _, pid, file, ..] = fields.as_slice() else { continue };
        let Some(pid) = pid.parse::<u32>().ok().filter(|pid| closed.contains(pid)) else {
            continue;
        };
        let inode = file.rsplit(':').next().and_then(|inode| inode.parse::<u64>().ok());
        if let Some((_, path)) = inode.and_then(|inode| files.by_inode.get(&inode)) {
            found.insert(pid, format!("{} (pid {pid}: {path})", process::command(pid)));
        }
    }
    found.into_values().collect()
}

/// What `/proc/…/stat` tells of a process or thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    /// `R`, `S`, `D`, `T` (stopped), `t` (stopped by a tracer), `Z` or `X` (ended), and others.
    pub(super) state: u8,
    /// The parent's process id.
    pub(super) parent: u32,
    /// When it was started, in ticks since the boot: with its id, it is known for certain.
    pub(super) started: u64,
}

impl Stat {
    /// Of a process, or of one thread of it; `None` once it has ended.
    pub(super) fn of(pid: u32, thread: Option<u32>) -> Option<Stat> {
        let path = match thread {
            Some(thread) => format!("/proc/{pid}/task/{thread}/stat"),
            None => format!("/proc/{pid}/stat"),
        };
        let text = fs::read(path).ok()?;
        // The name, in brackets, may hold anything.
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        Some(Stat { state, parent, started: fields.nth(17)?.parse().ok()? })
    }

    /// Whether nothing of it is left to run.
    pub(super) fn ended(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The threads of a process that have not ended.
pub(super) fn threads(pid: u32) -> Vec<u32> {
    let listed = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ids = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|&thread| Stat::of(pid, Some(thread)).is_some_and(|stat| !stat.ended())).collect()
}

/// This process and all above it.
fn ourselves() -> BTreeSet<u32> {
    let mut line = BTreeSet::new();
    let mut pid = std::process::id();
    for _ in 0..PARENTS_MAX {
        if pid == 0 || !line.insert(pid) {
            break;
        }
        pid = Stat::of(pid, None).map_or(0, |stat| stat.parent);
    }
    line
}

/// A number of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

/// The process that the caller named: refused where there is none, or it is a thread.
pub(super) fn exists(pid: u32) -> Result<()> {
    if Stat::of(pid, None).is_none_or(Stat::ended) {
        return Err(Error::not_found(format!("there is no process {pid}")).with_remedy("a process id is that of this machine, or of this container: take the backup where `ps` shows the node"));
    }
    match status(pid, "Tgid") {
        Some(process) if process != pid => {
            Err(Error::input(format!("{pid} is a thread of process {process}"))
                .with_remedy(Remedy::Freeze(Some(process))))
        }
        _ => Ok(()),
    }
}

/// Refuses writers that can't be stopped, or whose files can't be captured so.
pub(super) fn refuse(writers: &[Writer], layout: &Layout) -> Result<()> {
    let ours = ourselves();
    for writer in writers {
        if ours.contains(&writer.pid) {
            return Err(Error::conflict(format!(
                "{}, which can write {}, waits for this process: stopped, it could not be continued",
                writer.named(),
                writer.what()
            ))
            .with_remedy("take the backup from elsewhere").with_remedy(Remedy::Exclude));
        }
        if let Some(tracer) = status(writer.pid, "TracerPid").filter(|&tracer| tracer != 0) {
            return Err(Error::conflict(format!(
                "a debugger is attached to {}: {} (pid {tracer})",
                writer.named(),
                process::command(tracer)
            ))
            .with_remedy("let it detach"));
        }
        let states = threads(writer.pid);
        let mut states = states.iter().filter_map(|&thread| Stat::of(writer.pid, Some(thread)));
        if states.any(|stat| stat.state == b'T') {
            return Err(Error::conflict(format!("{} is stopped already", writer.named()))
                .with_remedy("continue it")
                .with_remedy("end it")
                .with_remedy(Remedy::NoFreeze));
        }
        refuse_memory(writer, layout)?;
    }
    Ok(())
}

/// Refuses one whose files may change, or may be in no order that an engine knows, although it is
/// stopped.
pub(super) fn refuse_memory(writer: &Writer, layout: &Layout) -> Result<()> {
    refuse_queues(writer)?;
    refuse_mappings(writer, layout)
}

/// Writes that the kernel carries out by itself go on while the process is stopped.
fn refuse_queues(writer: &Writer) -> Result<()> {
    let pid = writer.pid;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let listed = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let io_uring = listed.filter(|entry| {
        // Only what is no file, directory, socket or pipe can be one.
        let kind = fs::metadata(entry.path()).map(|found| found.file_type());
        kind.is_ok_and(|kind| !kind.is_file() && !kind.is_socket() && !kind.is_fifo())
    });
    let mut links = io_uring.filter_map(|entry| fs::read_link(entry.path()).ok());
    let what = if links.any(|link| link.as_os_str() == "anon_inode:[io_uring]")
        || maps.contains("anon_inode:[io_uring]")
    {
        "io_uring"
    } else if maps.contains("/[aio]") {
        "Linux asynchronous I/O"
    } else {
        return Ok(());
    };
    Err(Error::conflict(format!(
        "{} uses {what}: the kernel may write for it while it is stopped",
        writer.named()
    ))
    .with_entry(writer.what())
    .with_remedy("switch it off in the node's settings")
    .with_remedy(Remedy::CheckpointHook)
    .with_remedy("stop the node"))
}

/// A store into memory is not a write that an engine orders: only engines that are known to recover
/// from any of them are captured in this way.
fn refuse_mappings(writer: &Writer, layout: &Layout) -> Result<()> {
    let Some(path) = writer.mapped.iter().find(|path| !recovers(layout, path)) else {
        return Ok(());
    };
    Err(Error::conflict(format!(
        "{} writes {path} through its memory, and nothing is known of how that recovers from a \
         crash",
        writer.named()
    ))
    .with_entry(path.to_string())
    .with_remedy(Remedy::Exclude)
    .with_remedy("let the node not map it (LMDB: no MDB_WRITEMAP)")
    .with_remedy("stop the node"))
}

/// Whether the engine of a file that is written through memory makes good what a crash leaves of it.
pub(super) fn recovers(layout: &Layout, path: &RelPath) -> bool {
    let of = layout.parts.iter().find(|part| part.entries.contains(path));
    let Some(part) = of else { return false };
    if let Some(engine) = layout.engines().get(part.engine) {
        return engine.recovers(path);
    }
    // An encrypted SQLite is no known database, and its `-shm` is one all the same.
    let name = path.name().to_string_lossy();
    name.strip_suffix("-shm").is_some_and(|main| {
        let beside = |name: String| {
            let parent = path.parent().unwrap_or_else(RelPath::root);
            let place = layout.held.at(&parent.join(name.as_ref()));
            metadata::look(&place).is_ok_and(|found| found.kind == EntryType::File)
        };
        beside(main.to_owned()) && beside(format!("{main}-wal"))
    })
}
