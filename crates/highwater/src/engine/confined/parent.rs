//! The side with many rights.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

use super::wire::{self, Answer, Image, Job, Message, Order, Part, Request, Value};
use crate::durable;
use crate::engine::{
    Barrier, CaptureOptions, Cell, Checked, Consistency, Depth, EngineKind, EntryType, Finished,
    FoundPart, PartCapture, Piece, ReplicaPoint, Row, SourceEntry, Units, look_at,
};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::rooted::{Owner, RootedPath, is_only_ours, is_root};

/// All rows that a query finds have no more bytes, and each takes so many besides.
const ROWS_BYTES_MAX: usize = 128 << 20;
const ROW_BYTES: usize = 64;
/// How long an answer may take. The owner of a node may stop the process that has their rights.
const ANSWER_MAX: Duration = Duration::from_secs(300);
/// Room between the two processes, as far as the system allows.
const SOCKET_BYTES: usize = 1 << 20;
/// The largest page that SQLite knows, and the smallest unit in which one is compared.
const PAGE_BYTES_MAX: u32 = 1 << 16;
const PAGE_BYTES_MIN: u32 = 4096;

/// With whose rights a database is opened by its path; `None`: with those of this process.
pub(in crate::engine) fn is_needed(dir: &RootedPath, root: &RelPath) -> Result<Option<Owner>> {
    if !is_root() {
        return Ok(None);
    }
    let file = dir.at(root);
    if is_only_ours(&file.path())? && dir.root_owner().is_ok_and(|owner| !owner.is_foreign()) {
        return Ok(None);
    }
    let node = dir.owner()?;
    let owner = if node.is_foreign() { node } else { file.owner()? };
    Ok(Some(owner))
}

/// Begins a read transaction on each of `parts`, by a process with the rights of `owner`.
pub(in crate::engine) fn capture(
    dir: &RootedPath,
    parts: &[&FoundPart],
    owner: Owner,
    options: &CaptureOptions,
    env: &Env,
) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
    let wanted = |part: &&FoundPart| Part { name: part.name.clone(), root: part.root.clone() };
    let request = Request {
        owner: owner.is_foreign().then_some((owner.uid, owner.gid)),
        job: Job::Capture {
            parts: parts.iter().map(wanted).collect(),
            block_max: options.block_max,
        },
    };
    let mut reader = Reader::start(dir, &request, Some(ANSWER_MAX), env)?;
    let Answer::Begun { barrier, images } = reader.answer()? else { return Err(wire::nonsense()) };
    if images.len() != parts.len() {
        return Err(wire::nonsense());
    }
    let reader = Arc::new(Mutex::new(reader));
    let mut captures: Vec<Box<dyn PartCapture>> = Vec::with_capacity(parts.len());
    for (number, (part, image)) in parts.iter().zip(images).enumerate() {
        captures.push(Box::new(Confined::new(dir, part, number, image, &reader)?));
    }
    Ok((captures, barrier))
}

/// Checks a restored database, by a process without any capability.
pub(in crate::engine) fn check(
    dir: &RootedPath,
    root: &RelPath,
    depth: Depth,
    owner: Owner,
    env: &Env,
) -> Result<Checked> {
    let request = Request {
        owner: owner.is_foreign().then_some((owner.uid, owner.gid)),
        job: Job::Check { root: root.clone(), depth },
    };
    // A check of all data takes as long as it takes, and says nothing meanwhile. What is restored is not
    // the owner's yet, so nobody else can stop the process.
    match Reader::start(dir, &request, None, env)?.answer()? {
        Answer::Checked { warnings, unchecked } => Ok(Checked { warnings, unchecked }),
        _ => Err(wire::nonsense()),
    }
}

/// The other process. Dropped, it ends.
struct Reader {
    child: Child,
    socket: UnixStream,
    buffer: Vec<u8>,
    /// It was left in the middle of something: nothing that it says can be understood.
    lost: bool,
}

impl Reader {
    fn start(
        dir: &RootedPath,
        request: &Request,
        answer_max: Option<Duration>,
        env: &Env,
    ) -> Result<Reader> {
        let Some([program, arguments @ ..]) = env.helper() else {
            return Err(Error::denied(format!(
                "root opens no database in {dir}, whose owner can change what a path leads to"
            ))
            .with_remedy("run as the user of the node, or name a helper with `Env::with_helper`"));
        };
        let failed = |source: std::io::Error| {
            Error::io("can't start the process that reads the node's database", source)
        };
        let directory = dir
            .open_with(OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .map_err(|errno| durable::met(dir, "open", errno))?;
        let (mut socket, theirs) = UnixStream::pair().map_err(failed)?;
        // Only a matter of time.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&theirs, SOCKET_BYTES);
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(directory))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let asked = socket
            .set_read_timeout(answer_max)
            .map_err(failed)
            .and_then(|()| wire::send(&mut socket, request));
        if let Err(error) = asked {
            end(&mut child);
            return Err(error);
        }
        Ok(Reader { child, socket, buffer: Vec::new(), lost: false })
    }

    /// The next document, which is not content.
    fn answer(&mut self) -> Result<Answer> {
        match wire::receive(&mut self.socket, &mut self.buffer)? {
            Message::Document(Answer::Failed(failure)) => Err(failure.error()),
            Message::Document(answer) => Ok(answer),
            _ => Err(wire::nonsense()),
        }
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        if self.lost {
            return Err(Error::conflict("the reading of the database was given up"));
        }
        wire::send(&mut self.socket, order)
    }

    /// Hands all content of a database on; tells how much there was.
    fn stream(
        &mut self,
        part: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<u64> {
        self.order(&Order::Stream { part })?;
        self.lost = true;
        let mut total: u64 = 0;
        loop {
            match wire::receive(&mut self.socket, &mut self.buffer)? {
                Message::Content(length) => {
                    total = total.saturating_add(length as u64);
                    sink(Piece::Data(&self.buffer[..length]))?;
                }
                Message::Hole(length) => {
                    total = total.saturating_add(length);
                    sink(Piece::Hole(length))?;
                }
                Message::Document(Answer::End) => break,
                Message::Document(Answer::Failed(failure)) => {
                    self.lost = false;
                    return Err(failure.error());
                }
                Message::Document(_) => return Err(wire::nonsense()),
            }
        }
        self.lost = false;
        Ok(total)
    }
}

impl Reader {
    /// All rows that a query finds.
    fn query(&mut self, part: usize, sql: &str) -> Result<Vec<Row>> {
        self.order(&Order::Query { part, sql: sql.to_owned() })?;
        let (mut rows, mut room) = (Vec::new(), ROWS_BYTES_MAX);
        loop {
            let some = match self.answer()? {
                Answer::Rows(some) => some,
                Answer::End => return Ok(rows),
                _ => return Err(wire::nonsense()),
            };
            for row in some {
                let row: Row = row.into_iter().map(Value::cell).collect::<Result<_>>()?;
                let bytes: usize = row.iter().filter_map(Cell::bytes).map(<[u8]>::len).sum();
                room = room.checked_sub(bytes + ROW_BYTES).ok_or_else(wire::nonsense)?;
                rows.push(row);
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends it, and gives its locks up. It only reads.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// One database, read by the other process.
struct Confined {
    name: String,
    number: usize,
    image: Image,
    entries: Vec<SourceEntry>,
    reader: Arc<Mutex<Reader>>,
}

impl Confined {
    fn new(
        dir: &RootedPath,
        part: &FoundPart,
        number: usize,
        image: Image,
        reader: &Arc<Mutex<Reader>>,
    ) -> Result<Confined> {
        let found = look_at(&dir.at(&part.root))?;
        let paged = match image.units {
            Units::Pages { bytes } => {
                (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&bytes) && bytes.is_power_of_two()
            }
            Units::Slices => false,
        };
        if found.kind != EntryType::File || !paged {
            return Err(wire::nonsense());
        }
        let described = SourceEntry {
            path: part.root.clone(),
            kind: EntryType::File,
            meta: found.meta,
            size: image.size,
            holes: Vec::new(),
            units: image.units,
            identity: image.identity.clone(),
        };
        Ok(Confined {
            name: part.name.clone(),
            number,
            image,
            entries: vec![described],
            reader: Arc::clone(reader),
        })
    }
}

impl PartCapture for Confined {
    fn name(&self) -> &str {
        &self.name
    }

    fn engine(&self) -> EngineKind {
        EngineKind::SQLITE
    }

    fn engine_version(&self) -> Option<String> {
        self.image.engine_version.clone()
    }

    fn consistency(&self) -> Consistency {
        Consistency::Sqlite
    }

    fn replica(&self) -> Option<ReplicaPoint> {
        self.image.replica
    }

    fn holds_up(&self) -> bool {
        self.image.holds_up
    }

    fn entries(&self) -> &[SourceEntry] {
        &self.entries
    }

    fn stream(
        &mut self,
        entry: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        if entry != 0 {
            return Err(Error::bug(format!("{} has no entry {entry}", self.name)));
        }
        let mut left = self.image.size;
        let mut bounded = |piece: Piece<'_>| {
            let length = match piece {
                Piece::Data(bytes) => bytes.len() as u64,
                Piece::Hole(length) => length,
            };
            left = left.checked_sub(length).ok_or_else(wire::nonsense)?;
            sink(piece)
        };
        self.reader.lock().stream(self.number, &mut bounded)?;
        if left == 0 { Ok(()) } else { Err(wire::nonsense()) }
    }

    fn query(&mut self, sql: &str) -> Result<Option<Vec<Row>>> {
        self.reader.lock().query(self.number, sql).map(Some)
    }

    fn finish(self: Box<Self>) -> Result<Finished> {
        let mut reader = self.reader.lock();
        reader.order(&Order::Finish { part: self.number })?;
        match reader.answer()? {
            Answer::Finished(finished) => Ok(finished),
            _ => Err(wire::nonsense()),
        }
    }
}
