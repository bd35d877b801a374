//! The side with few rights.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::wire::{self, Answer, Failure, Image, Job, Message, Order, Part, Request, Value};
use crate::engine::sqlite;
use crate::engine::{
    CaptureOptions, Cell, Checked, EngineKind, FoundPart, PartCapture, Piece, SourceEntry,
};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::rooted::RootedPath;

/// After so many rows, or bytes in them, a message is sent; and what a row may have.
const ROWS: usize = 10_000;
const ROWS_BYTES: usize = 1 << 20;
const ROW_BYTES_MAX: usize = 8 << 20;

/// Serves one backup or check of another process: `directory` is the node directory, `socket` leads to
/// that process. To be run by a program that was started for it and does nothing else, as
/// [`Env::with_helper`] says: the whole process gives up its rights.
///
/// # Errors
/// Denied where the rights can't be given up; whatever the other process can't be told.
pub fn serve(directory: BorrowedFd<'_>, socket: OwnedFd) -> Result<()> {
    let mut socket = UnixStream::from(socket);
    let mut buffer = Vec::new();
    let Message::Document(Request { owner, job }) = wire::receive(&mut socket, &mut buffer)? else {
        return Err(Error::input("the helper of a backup is not run by hand"));
    };
    let done = confine(directory, owner).and_then(|()| {
        let root = RootedPath::open("/".as_ref())?;
        match job {
            Job::Capture { parts, block_max } => {
                let options = CaptureOptions { block_max, ..CaptureOptions::default() };
                capture(&root, &parts, &options, &mut socket)
            }
            Job::Check { root: database, depth } => {
                let Checked { warnings, unchecked } =
                    sqlite::check_here(&root.at(&database), depth)?;
                wire::send(&mut socket, &Answer::Checked { warnings, unchecked })
            }
        }
    });
    match done {
        Ok(()) => Ok(()),
        Err(error) => wire::send(&mut socket, &Answer::Failed(Failure::of(&error))),
    }
}

/// Gives up what this process has, for good.
fn confine(directory: BorrowedFd<'_>, owner: Option<(u32, u32)>) -> Result<()> {
    let drop = || -> rustix::io::Result<()> {
        rustix::process::fchdir(directory)?;
        rustix::process::chroot(".")?;
        rustix::process::chdir("/")?;
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            // Of the one thread that there is.
            rustix::thread::set_thread_groups(&[gid])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        }
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets)?;
        rustix::thread::set_no_new_privs(true)
    };
    drop().map_err(|errno| {
        Error::denied(format!("the rights of root can't be given up to read a database: {errno}"))
            .with_remedy(
                "allow CAP_SYS_CHROOT, CAP_SETUID and CAP_SETGID, or run as the node's user",
            )
            .with_source(std::io::Error::from(errno))
    })
}

/// Reads what is asked for, until nobody asks any more.
fn capture(
    root: &RootedPath,
    parts: &[Part],
    options: &CaptureOptions,
    socket: &mut UnixStream,
) -> Result<()> {
    let parts: Vec<FoundPart> = parts.iter().map(found).collect();
    let parts: Vec<&FoundPart> = parts.iter().collect();
    let nobody = sqlite::Company::Nobody;
    let (captures, barrier) = sqlite::begin_here(root, &parts, options, nobody, &Env::system())?;
    let images = captures.iter().map(|capture| described(capture)).collect::<Result<_>>()?;
    wire::send(socket, &Answer::Begun { barrier, images })?;
    let mut captures: Vec<Option<Box<dyn PartCapture>>> =
        captures.into_iter().map(|capture| Some(Box::new(capture) as _)).collect();
    let mut buffer = Vec::new();
    loop {
        // The end of the socket is the end of the other process, or of its interest.
        let Ok(Message::Document(order)) = wire::receive(socket, &mut buffer) else {
            return Ok(());
        };
        let answer = match order {
            Order::Stream { part } => {
                let capture = captures.get_mut(part).and_then(Option::as_mut);
                let capture = capture.ok_or_else(wire::nonsense)?;
                stream(capture.as_mut(), socket).map(|()| Answer::End)
            }
            Order::Query { part, sql } => {
                let capture = captures.get_mut(part).and_then(Option::as_mut);
                let capture = capture.ok_or_else(wire::nonsense)?;
                query(capture.as_mut(), &sql, socket).map(|()| Answer::End)
            }
            Order::Finish { part } => {
                let capture = captures.get_mut(part).and_then(Option::take);
                capture.ok_or_else(wire::nonsense)?.finish().map(Answer::Finished)
            }
        };
        let answer = answer.unwrap_or_else(|error| Answer::Failed(Failure::of(&error)));
        wire::send(socket, &answer)?;
    }
}

fn stream(capture: &mut dyn PartCapture, socket: &mut UnixStream) -> Result<()> {
    capture.stream(0, &mut |piece| match piece {
        Piece::Data(bytes) => wire::send_content(socket, bytes),
        Piece::Hole(length) => wire::send_hole(socket, length),
    })
}

/// Sends the rows that a query finds, some at a time: a message has room for 16 MiB, and a database for one row
/// of more is none that is asked.
fn query(capture: &mut dyn PartCapture, sql: &str, socket: &mut UnixStream) -> Result<()> {
    let rows = capture.query(sql)?.ok_or_else(wire::nonsense)?;
    let (mut some, mut bytes) = (Vec::new(), 0);
    for row in rows {
        let held: usize = row.iter().filter_map(Cell::bytes).map(<[u8]>::len).sum();
        if held > ROW_BYTES_MAX {
            return Err(Error::corrupt("a row of the database is too long to be handed on"));
        }
        bytes += held;
        some.push(row.iter().map(Value::of).collect());
        if bytes > ROWS_BYTES || some.len() >= ROWS {
            wire::send(socket, &Answer::Rows(std::mem::take(&mut some)))?;
            bytes = 0;
        }
    }
    wire::send(socket, &Answer::Rows(some))
}

fn found(part: &Part) -> FoundPart {
    FoundPart {
        name: part.name.clone(),
        engine: EngineKind::SQLITE,
        root: part.root.clone(),
        entries: vec![part.root.clone()],
        files: 1,
        bytes: 0,
    }
}

fn described(capture: &dyn PartCapture) -> Result<Image> {
    let [SourceEntry { size, units, identity, .. }] = capture.entries() else {
        return Err(Error::bug("a database has not one file"));
    };
    Ok(Image {
        engine_version: capture.engine_version(),
        holds_up: capture.holds_up(),
        replica: capture.replica(),
        size: *size,
        units: *units,
        identity: identity.clone(),
    })
}
