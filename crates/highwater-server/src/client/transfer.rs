//! One archive on its way in, over as many connections as it takes.

use std::io::Write;
use std::time::Duration;

use highwater::Event;
use highwater::env::FaultPoint;
use highwater::{Control, Error, Result};
use tonic::Streaming;

use super::PullOptions;
use super::connect::Server;
use super::failure::{Failure, lie};
use crate::stream::{CHUNK_BYTES_MAX, HEIGHT};
use crate::v1::stream_response::Part;
use crate::v1::{Header, StreamRequest, StreamResponse, Trailer};

/// So often is a broken connection taken up again without a byte of progress in between.
const TRIES_MAX: u32 = 6;
/// So often at all.
const RESUMES_MAX: u32 = 64;
/// The first pause before that; each further one without progress is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// An archive that has come as a whole, by what the server says.
pub(super) struct Transferred {
    pub(super) header: Header,
    pub(super) resumed: u32,
}

/// An archive on its way.
pub(super) struct Transfer<'a> {
    server: &'a Server,
    options: &'a PullOptions,
    control: &'a Control,
    /// The server takes a stream up again.
    resumes: bool,
    /// What the first message of the first stream has said.
    header: Option<Header>,
    /// Bytes that have come, over all streams, and their hash.
    bytes: u64,
    hasher: blake3::Hasher,
    /// Streams that went on where another one broke.
    resumed: u32,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        server: &'a Server,
        options: &'a PullOptions,
        control: &'a Control,
        resumes: bool,
    ) -> Transfer<'a> {
        let hasher = blake3::Hasher::new();
        Transfer { server, options, control, resumes, header: None, bytes: 0, hasher, resumed: 0 }
    }

    /// Writes what comes to `out`, until all of it has come.
    pub(super) fn run(mut self, out: &mut dyn Write) -> Result<Transferred> {
        let mut tries = 0;
        loop {
            let before = self.bytes;
            let cut = match self.attempt(out) {
                Ok(header) => return Ok(Transferred { header, resumed: self.resumed }),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Cut(error)) => error,
            };
            if self.bytes == 0 || !self.resumes {
                return Err(cut);
            }
            tries = if self.bytes > before { 0 } else { tries + 1 };
            if tries == TRIES_MAX || self.resumed == RESUMES_MAX {
                return Err(given_up(&cut, self.bytes));
            }
            self.server.pause(PAUSE_FIRST * (1 << tries))?;
        }
    }

    /// One stream, from what is there already to the end.
    fn attempt(&mut self, out: &mut dyn Write) -> Result<Header, Failure> {
        let mut client = self.server.connect()?;
        let request = self.server.request(self.what());
        let mut stream = self.server.wait(client.stream(request))?.into_inner();
        let Some(Part::Header(header)) = self.next(&mut stream)? else {
            return Err(lie("the stream does not begin with a header").into());
        };
        self.begin(&header)?;
        let mut chunks = 0;
        loop {
            match self.next(&mut stream)? {
                Some(Part::Chunk(chunk)) => {
                    self.take(&header, &chunk, out)?;
                    chunks += 1;
                }
                Some(Part::Trailer(trailer)) => {
                    self.end(&header, &trailer, chunks)?;
                    if self.next(&mut stream)?.is_some() {
                        return Err(lie("data follows the trailer").into());
                    }
                    return Ok(header);
                }
                Some(Part::Header(_)) => return Err(lie("a second header came").into()),
                None => return Err(cut_short(self.bytes, header.bytes_total).into()),
            }
        }
    }

    /// What is asked for: the rest of what was begun, or all of it.
    fn what(&self) -> StreamRequest {
        let PullOptions { node, snapshot, since, target_height, .. } = self.options;
        let (snapshot, since) = match &self.header {
            Some(header) => (header.snapshot.clone(), header.since.clone()),
            None => (snapshot.clone().unwrap_or_default(), since.clone().unwrap_or_default()),
        };
        let node = node.as_ref().map(ToString::to_string).unwrap_or_default();
        StreamRequest { node, since, target_height: *target_height, offset: self.bytes, snapshot }
    }

    fn next(&self, stream: &mut Streaming<StreamResponse>) -> Result<Option<Part>, Failure> {
        match self.server.wait(stream.message())? {
            None => Ok(None),
            Some(StreamResponse { part: Some(part) }) => Ok(Some(part)),
            Some(StreamResponse { part: None }) => Err(lie("a message is empty").into()),
        }
    }

    /// Looks whether the header tells of what was asked for, or of what was begun.
    fn begin(&mut self, header: &Header) -> Result<()> {
        if let Some(first) = &self.header {
            if first != header {
                return Err(Error::conflict("the archive changed on the server")
                    .with_remedy("pull again; nothing was kept"));
            }
            self.resumed += 1;
            return Ok(());
        }
        let fits = |asked: &Option<String>, told: &str| match asked.as_deref() {
            None | Some("latest") => true,
            Some(asked) => told.starts_with(asked),
        };
        let PullOptions { snapshot, since, target_height, .. } = self.options;
        let same = fits(snapshot, &header.snapshot)
            && fits(since, &header.since)
            && header.since.is_empty() == since.is_none();
        if !same {
            return Err(lie("the header names another snapshot than was requested"));
        }
        let height = header.marks.get(HEIGHT).copied();
        if *target_height > 0 && height.is_none_or(|height| height < *target_height) {
            return Err(lie("the header states a lower height than was requested"));
        }
        self.control.report(Event::Stage { name: "pull", bytes_total: header.bytes_total });
        self.header = Some(header.clone());
        Ok(())
    }

    fn take(&mut self, header: &Header, chunk: &[u8], out: &mut dyn Write) -> Result<()> {
        let length = chunk.len() as u64;
        if chunk.is_empty() || chunk.len() > CHUNK_BYTES_MAX {
            return Err(lie("a chunk is empty, or longer than it may be"));
        }
        if header.bytes_total.saturating_sub(self.bytes) < length {
            return Err(lie("more data came than the header announced"));
        }
        self.control.env.fault(FaultPoint::ExportWrite)?;
        out.write_all(chunk).map_err(|error| Error::io("writing the archive", error))?;
        self.hasher.update(chunk);
        self.bytes += length;
        self.control.report(Event::Bytes(length));
        Ok(())
    }

    /// Compares what came with what the trailer says was sent.
    fn end(&self, header: &Header, trailer: &Trailer, chunks: u64) -> Result<()> {
        if !trailer.completed || trailer.snapshot != header.snapshot {
            return Err(lie("the trailer does not say that the stream is complete"));
        }
        if trailer.bytes != self.bytes || self.bytes != header.bytes_total {
            return Err(lie(format!(
                "{} bytes came; the header announced {}, the trailer {}",
                self.bytes, header.bytes_total, trailer.bytes
            )));
        }
        if trailer.chunks != chunks {
            let told = trailer.chunks;
            return Err(lie(format!("{chunks} chunks came; the trailer tells of {told}")));
        }
        if trailer.blake3 != self.hasher.finalize().as_bytes() {
            return Err(lie("the data was changed on the way: the hashes differ"));
        }
        Ok(())
    }
}

fn cut_short(bytes: u64, bytes_total: u64) -> Error {
    Error::unavailable(format!(
        "the stream ended without its trailer, after {bytes} of {bytes_total} bytes"
    ))
    .with_remedy("pull again; nothing was kept")
}

fn given_up(cut: &Error, bytes: u64) -> Error {
    Error::unavailable(format!(
        "the stream broke after {bytes} bytes, and could not be resumed: {}",
        cut.message()
    ))
    .with_remedy("pull again once the server can be reached; nothing was kept")
}
