//! A snapshot, or an increment, as a stream of messages: header, chunks, trailer.
//!
//! One thread that may block exports into a bounded queue, which the connection empties: a client that
//! reads slowly holds the export back, and one that has gone ends it. What is sent is never kept.

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use highwater::Cancel;
use highwater::agent::{Agent, Operation, OperationId, OperationState, Task};
use highwater::archive::{Export, ExportOptions};
use highwater::{Control, Error, Kind, Result};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tonic::Status;

use crate::Agents;
use crate::calls::selector;
use crate::fault::CallFault;
use crate::state::{Identity, ServerState};
use crate::v1::stream_response::Part;
use crate::v1::{Header, StreamRequest, StreamResponse, Trailer};
use highwater_gate::RunningCall;
use highwater_gate::Scope;

/// No chunk is longer.
pub(crate) const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The mark that a target height is compared with.
pub(crate) const HEIGHT: &str = "height";
/// Chunks that wait for the connection.
const QUEUE_CHUNKS: usize = 4;
/// A client that takes no chunk for this long gives its place to others.
const STALL_MAX: Duration = Duration::from_secs(5 * 60);
/// A backup that ends just when it is to be waited for is begun anew so often at most.
const BEGIN_TRIES: u32 = 8;

/// The messages of one archive.
pub(crate) type Messages = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

/// Streams what is asked for.
///
/// # Errors
/// Without the scope: `read` for a snapshot that is there, `backup` for one that is made. A limit where
/// no place is free. Input where the request contradicts itself; not found where there is no such node
/// or snapshot; stale where the snapshot has not reached the target height; corrupt where the vault is
/// damaged; unavailable where it can't be reached. After the first message the same ends the stream
/// instead of a trailer.
pub(crate) async fn stream(
    state: &Arc<ServerState>,
    identity: Identity,
    running: Option<RunningCall>,
    mut request: StreamRequest,
) -> Result<Messages, CallFault> {
    let fresh = request.snapshot.is_empty();
    let (asked, scope) = (request.node.clone(), if fresh { Scope::Backup } else { Scope::Read });
    let allow = move |state: &ServerState| {
        state.allow(&identity, scope, "Stream", &asked)?;
        Ok(state.agents.find(&asked)?.node().to_string())
    };
    request.node = state.run(allow).await?;
    let place = Arc::clone(&state.streams).try_acquire_owned();
    let place = place.map_err(|_| CallFault::Limit("streams"))?;
    if fresh && request.offset > 0 {
        return Err(Error::input(
            "an offset without a snapshot: what was begun before is not known",
        )
        .with_remedy("name the snapshot of the header with it")
        .into());
    }
    let snapshot = match fresh {
        true => back_up(state, &request.node).await?,
        false => request.snapshot.clone(),
    };
    let control = Control::new(state.env.clone());
    let stop = Stop(control.cancel.clone());
    let (ready, settled) = oneshot::channel();
    let (chunks, queue) = mpsc::channel(QUEUE_CHUNKS);
    let sink = Sink::new(chunks, request.offset);
    let work = Work { agents: state.agents.clone(), snapshot, request, control };
    let task = tokio::task::spawn_blocking(move || {
        let outcome = work.export(ready, sink);
        drop(place);
        outcome
    });
    // What ends before it is settled says why.
    let Ok(header) = settled.await else {
        let ended = task.await.map_err(CallFault::panicked)?;
        return Err(ended.err().unwrap_or_else(|| Error::bug("no header was sent")).into());
    };
    let stopping = state.stopping.subscribe();
    let sending = Sending {
        header: Some(header),
        queue,
        task: Some(task),
        stopping,
        _stop: stop,
        _running: running,
    };
    Ok(Box::pin(futures::stream::unfold(sending, Sending::next)))
}

/// Makes a backup, or waits for the one that is being made, and returns its snapshot. A client that goes
/// away meanwhile leaves the backup alone: it is an operation like any other.
async fn back_up(state: &Arc<ServerState>, node: &str) -> Result<String, CallFault> {
    let mut stopping = state.stopping.subscribe();
    let asked = node.to_owned();
    let begun = move |state: &ServerState| {
        let agent = state.agents.find(&asked)?;
        // Listening begins before the operation is read, so that no change is missed.
        Ok((agent.changes(), begin(&agent)?))
    };
    let (mut changes, id) = state.run(begun).await?;
    loop {
        let asked = node.to_owned();
        let read = move |state: &ServerState| Ok(state.agents.find(&asked)?.operation(id)?);
        let operation = state.run(read).await?;
        if operation.state.is_final() {
            return Ok(snapshot_of(&operation)?);
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return Err(Error::unavailable("the agent has stopped").into());
                }
            }
            () = stopped(&mut stopping) => return Err(stops().into()),
        }
    }
}

fn stops() -> Error {
    Error::unavailable("the server stops").with_remedy("go on from the same offset once it is back")
}

/// Begins a backup; if one runs or waits, that one is returned.
fn begin(agent: &Agent) -> Result<OperationId> {
    let mut tries = 0;
    loop {
        tries += 1;
        let refused = match agent.begin(Task::Backup) {
            Ok(operation) => return Ok(operation.id),
            Err(error) if error.kind() == Kind::Conflict => error,
            Err(error) => return Err(error),
        };
        let active = agent.status().active;
        match active.iter().find(|operation| operation.task == Task::Backup) {
            Some(operation) => return Ok(operation.id),
            // It has ended in between, or the agent stops.
            None if tries < BEGIN_TRIES => {}
            None => return Err(refused),
        }
    }
}

/// The snapshot that a backup has made.
fn snapshot_of(operation: &Operation) -> Result<String> {
    let reason = operation.reason.as_deref().unwrap_or("it does not say why");
    match (operation.state, operation.snapshot) {
        (OperationState::Completed, Some(snapshot)) => Ok(snapshot.to_string()),
        (OperationState::Cancelled, _) => {
            Err(Error::conflict("the backup was cancelled before it could be streamed"))
        }
        _ => {
            let kind = operation.kind.as_deref().and_then(crate::client::kind_of);
            Err(Error::new(kind.unwrap_or(Kind::Bug), format!("the backup failed: {reason}")))
        }
    }
}

/// What is exported, on a thread that may block.
struct Work {
    agents: Agents,
    snapshot: String,
    request: StreamRequest,
    control: Control,
}

impl Work {
    fn export(self, ready: oneshot::Sender<Header>, mut sink: Sink) -> Result<Trailer> {
        self.control.cancel.check()?;
        let agent = self.agents.find(&self.request.node)?;
        let vault = agent.vault().get()?;
        let select = |snapshot: &str| selector(agent.node(), snapshot);
        let since = Some(self.request.since.as_str()).filter(|since| !since.is_empty());
        let options = ExportOptions::default()
            .selector(select(&self.snapshot)?)
            .since(since.map(select).transpose()?);
        let export = Export::new(&vault, &options)?;
        let header = self.header(&export)?;
        let snapshot = header.snapshot.clone();
        if ready.send(header).is_err() {
            return Err(Error::interrupted());
        }
        let report = export.write(&mut sink, &self.control);
        // Indexes of packs take memory for as long as they are kept.
        vault.forget_packs();
        let report = report?;
        if report.bytes != sink.at {
            return Err(Error::bug("an archive was not passed on as a whole"));
        }
        Ok(Trailer {
            snapshot,
            bytes: sink.at,
            chunks: sink.sent,
            blake3: sink.hasher.finalize().as_bytes().to_vec(),
            completed: true,
        })
    }

    /// What the first message says, once the snapshot has all that was asked for.
    fn header(&self, export: &Export<'_>) -> Result<Header> {
        let (target, marks) = (self.request.target_height, export.marks());
        refuse_low(target, marks.get(HEIGHT).copied())?;
        if self.request.offset > export.bytes() {
            return Err(Error::input(format!(
                "the offset {} lies behind the end of the archive, which has {} bytes",
                self.request.offset,
                export.bytes()
            )));
        }
        Ok(Header {
            snapshot: export.snapshot().to_string(),
            since: export.since().map(|since| since.to_string()).unwrap_or_default(),
            marks: marks.into_iter().collect(),
            target_height: target,
            bytes_total: export.bytes(),
        })
    }
}

/// The height is the one inside the snapshot: what the node is at now does not count.
fn refuse_low(target: u64, height: Option<u64>) -> Result<()> {
    match height {
        _ if target == 0 => Ok(()),
        Some(height) if height >= target => Ok(()),
        Some(height) => Err(Error::new(
            Kind::Stale,
            format!("the snapshot is at height {height}, below the target height {target}"),
        )
        .with_remedy("ask again once the node has come so far, or for a lower height")),
        None => Err(Error::new(
            Kind::Stale,
            format!(
                "the snapshot has no mark `{HEIGHT}` to compare the target height {target} with"
            ),
        )
        .with_remedy(
            "let the node report its height at the barrier, or ask without a target height",
        )),
    }
}

/// Cuts an archive into chunks, leaves out what the client has, and hashes all of it.
struct Sink {
    chunks: mpsc::Sender<Vec<u8>>,
    runtime: Handle,
    /// Bytes of the archive that the client has already.
    skip: u64,
    /// Bytes of the archive so far.
    at: u64,
    hasher: blake3::Hasher,
    chunk: Vec<u8>,
    sent: u64,
}

impl Sink {
    /// To be made inside a runtime.
    fn new(chunks: mpsc::Sender<Vec<u8>>, skip: u64) -> Sink {
        Sink {
            chunks,
            runtime: Handle::current(),
            skip,
            at: 0,
            hasher: blake3::Hasher::new(),
            chunk: Vec::new(),
            sent: 0,
        }
    }

    /// Puts the chunk into the queue, once there is room.
    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let sent = self
            .runtime
            .block_on(async { tokio::time::timeout(STALL_MAX, self.chunks.send(chunk)).await });
        match sent {
            Ok(Ok(())) => {
                self.sent += 1;
                Ok(())
            }
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        let skipped = self.skip.saturating_sub(self.at).min(bytes.len() as u64);
        self.at += bytes.len() as u64;
        let mut rest = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
        while !rest.is_empty() {
            self.chunk.reserve_exact(CHUNK_BYTES_MAX - self.chunk.len());
            let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES_MAX - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            rest = later;
            if self.chunk.len() == CHUNK_BYTES_MAX {
                self.send()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() { Ok(()) } else { self.send() }
    }
}

/// Stops an export whose messages nobody waits for any more.
struct Stop(Cancel);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What is left to be sent.
struct Sending {
    header: Option<Header>,
    queue: mpsc::Receiver<Vec<u8>>,
    /// Its end is the end of the stream.
    task: Option<JoinHandle<Result<Trailer>>>,
    /// True once the server stops.
    stopping: watch::Receiver<bool>,
    _stop: Stop,
    /// Its connection is not idle.
    _running: Option<RunningCall>,
}

impl Sending {
    /// The next message, and what follows it: nothing after a trailer or an error.
    async fn next(mut self) -> Option<(Result<StreamResponse, Status>, Sending)> {
        self.task.as_ref()?;
        let part = self.part().await;
        if !matches!(part, Ok(Part::Header(_) | Part::Chunk(_))) {
            self.task = None;
        }
        let message = part.map(|part| StreamResponse { part: Some(part) }).map_err(Status::from);
        Some((message, self))
    }

    async fn part(&mut self) -> Result<Part, CallFault> {
        if let Some(header) = self.header.take() {
            return Ok(Part::Header(header));
        }
        let chunk = tokio::select! {
            biased;
            () = stopped(&mut self.stopping) => return Err(stops().into()),
            chunk = self.queue.recv() => chunk,
        };
        match (chunk, &mut self.task) {
            (Some(chunk), _) => Ok(Part::Chunk(chunk)),
            (None, Some(task)) => ended(task.await),
            (None, None) => Err(Error::bug("a stream has two ends").into()),
        }
    }
}

/// Waits until the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A server that is gone has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// What the end of an export is for the client.
fn ended(outcome: Result<Result<Trailer>, JoinError>) -> Result<Part, CallFault> {
    Ok(Part::Trailer(outcome.map_err(CallFault::panicked)??))
}
