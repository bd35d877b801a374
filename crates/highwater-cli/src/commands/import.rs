//! `import`: archives into the vault that they come from, or a copy of it.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

use highwater::Cancel;
use highwater::archive::{self, ImportReport, Imported, Input};
use highwater::vault::Location;
use highwater::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::json;

use super::is_stdio;
use crate::answer::Answer;
use crate::cli::ImportArgs;
use crate::context::Context;
use crate::{format, places};

/// How long a wait for standard input goes on before a signal is noticed.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

pub(crate) fn run(context: &Context, args: &ImportArgs) -> Result<Answer> {
    let location = context.settings.location(args.vault.vault.as_deref())?;
    let key = context.settings.key(&args.vault.key)?;
    key.refuse_inside_vault(&location)?;
    let secret = key.load()?;
    let cancel = &context.control.cancel;
    let inputs =
        args.archives.iter().map(|path| input(path, cancel)).collect::<Result<Vec<_>>>()?;
    let report = archive::import(&location, &secret, inputs, &context.actor()?, &context.control)?;
    Ok(answer(&report, &location))
}

fn input(path: &Path, cancel: &Cancel) -> Result<Input<'static>> {
    if is_stdio(path) {
        if std::io::stdin().is_terminal() {
            return Err(Error::input("an archive can't be read from a terminal")
                .with_remedy("redirect standard input from a file or a pipe, or give a path"));
        }
        let file = std::io::stdin().as_fd().try_clone_to_owned();
        let file = File::from(file.map_err(|error| Error::io("standard input", error))?);
        let read = Box::new(Waiting { file, cancel: cancel.clone() });
        return Ok(Input { name: "standard input".to_owned(), read });
    }
    let name = places::text(path);
    let file = File::open(path)
        .map_err(|error| Error::io("the archive can't be opened", error).with_entry(&name))?;
    Ok(Input { name, read: Box::new(file) })
}

/// Standard input, whose other end may be silent for long: a signal ends the wait.
struct Waiting {
    file: File,
    cancel: Cancel,
}

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.check().is_err() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let mut ready = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut ready, Some(&LOOK)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn answer(report: &ImportReport, location: &Location) -> Answer {
    let new = report.snapshots.iter().filter(|snapshot| !snapshot.already_there).count() as u64;
    let snapshots: Vec<_> = report
        .snapshots
        .iter()
        .map(|imported| {
            json!({
                "snapshot": imported.snapshot,
                "node": imported.node,
                "since": imported.since,
                "already_there": imported.already_there,
            })
        })
        .collect();
    let document = json!({
        "vault": location.to_string(),
        "id": report.vault,
        "created": report.created,
        "imported": new,
        "snapshots": snapshots,
        "bytes_read": report.bytes_read,
        "bytes_stored": report.bytes_stored,
        "seconds": format::seconds(report.duration),
    });
    let mut lines = Vec::new();
    if report.created {
        lines.push(format!("Made a copy of vault {} in {location}.", report.vault));
    }
    lines.extend(report.snapshots.iter().map(
        |Imported { snapshot, node, already_there, .. }| match already_there {
            true => format!("Snapshot {snapshot} of node {node} already exists there."),
            false => format!("Imported snapshot {snapshot} of node {node}."),
        },
    ));
    lines.push(format!(
        "{} read, {} stored in {}.",
        format::bytes(report.bytes_read),
        format::bytes(report.bytes_stored),
        format::duration(report.duration)
    ));
    Answer::new(document, lines.join("\n"))
}
