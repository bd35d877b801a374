//! `serve`: the agent of nodes that can't be changed, with its RPC, metrics and dashboard on one port.

mod fleet;
mod node;
mod replica;
mod story;
mod watch;

use std::path::Path;

use highwater::{Error, Result};
use highwater_server::{Running, Server, Tokens};
use sd_notify::NotifyState;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::answer::Answer;
use crate::cli::ServeArgs;
use crate::context::Context;
use crate::exit;
use crate::settings::{Environment, Settings};

use fleet::Fleet;
pub(super) use story::tell as tell_as;

/// Threads that drive connections; what blocks has threads of its own.
const DRIVERS: usize = 2;

pub(crate) fn run(context: &Context, args: &ServeArgs) -> Result<Answer> {
    if context.settings.agent().nodes.is_empty() {
        return Err(Error::input("the settings name no node").with_remedy(
            "write a [[node]] with its `dir` into highwater.toml, and name that by --config",
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(DRIVERS)
        .thread_name("highwater-serve")
        .enable_all()
        .build()
        .map_err(|error| Error::io("starting the server's threads", error))?;
    runtime.block_on(serve(context, args))
}

/// The signals that a server listens to.
pub(super) struct Signals {
    end: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Signals> {
        let listen = |kind| signal(kind).map_err(|error| Error::io("the signal handlers", error));
        Ok(Signals {
            end: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            reload: listen(SignalKind::hangup())?,
        })
    }

    /// Returns when the process is to end; there is nothing to read again.
    pub(super) async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.end.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reload.recv() => {}
            }
        }
    }
}

async fn serve(context: &Context, args: &ServeArgs) -> Result<Answer> {
    let mut signals = Signals::listen()?;
    let mut fleet = tokio::task::block_in_place(|| Fleet::start(context, &args.vault))?;
    let running = match start_server(context, &fleet).await {
        Ok(running) => running,
        Err(error) => {
            tokio::task::block_in_place(|| fleet.stop());
            return Err(error);
        }
    };
    let address = running.address();
    tell(
        context,
        &json!({"event": "listening", "address": address}),
        &format!("Listening on {address}"),
    );
    notify(&[NotifyState::Ready]);
    let mut settings = None;
    let mut look = tokio::time::interval(watch::LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = signals.end.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = look.tick() => tokio::task::block_in_place(|| fleet.look()),
            _ = signals.reload.recv() => {
                tokio::task::block_in_place(|| reload(context, args, &mut fleet, &mut settings));
            }
        }
    }
    notify(&[NotifyState::Stopping]);
    tell(context, &json!({"event": "stopping"}), "Stopping");
    tokio::task::block_in_place(|| fleet.stop());
    running.shutdown().await?;
    Ok(Answer::new(json!({"event": "stopped"}), "Stopped"))
}

async fn start_server(context: &Context, fleet: &Fleet) -> Result<Running> {
    let settings = context.settings.agent();
    let mut server = Server::builder(fleet.agents.clone()).listen(settings.listen);
    if let Some((cert, key)) = &settings.tls {
        server = server.tls(cert, key);
    }
    if let Some(file) = &settings.tokens_file {
        server = server.tokens(Tokens::at(file));
    }
    let audit = match &settings.audit_file {
        Some(file) => file.clone(),
        None => fleet::data_dir(&context.settings)?.join("audit.jsonl"),
    };
    server.audit(audit).start().await
}

/// Reads the settings again. What is wrong with them is reported, and nothing is changed.
fn reload(context: &Context, args: &ServeArgs, fleet: &mut Fleet, current: &mut Option<Settings>) {
    let now = NotifyState::monotonic_usec_now();
    notify(&now.map_or(vec![NotifyState::Reloading], |now| vec![NotifyState::Reloading, now]));
    let old = current.as_ref().unwrap_or(&context.settings);
    let reloaded = read_again(old.file()).and_then(|new| {
        let what = fleet.reload(old, &new, &args.vault.key)?;
        Ok((new, what))
    });
    match reloaded {
        Ok((new, what)) => {
            *current = Some(new);
            tell(
                context,
                &json!({"event": "reloaded", "agents": what}),
                &format!("Reloaded: {what}"),
            );
            notify(&[NotifyState::Ready, NotifyState::Status("")]);
        }
        Err(error) => {
            let mut document = exit::document(&error);
            document["event"] = "not_reloaded".into();
            let lines = exit::lines(&error);
            tell(
                context,
                &document,
                &format!("{lines}\nNot reloaded: the previous settings remain in force"),
            );
            let summary = error.summary();
            let status = format!("not reloaded, the previous settings remain in force: {summary}");
            notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        }
    }
}

fn read_again(file: Option<&Path>) -> Result<Settings> {
    Settings::load(file, &Environment::of_process())
}

/// Tells what happens: a document a line to standard output, or a line for people to standard error.
pub(super) fn tell(context: &Context, document: &Value, text: &str) {
    story::tell(context.json, document, text);
}

/// Tells systemd, where that has started us and listens.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    // Nobody is there to be told, or has gone: that stops no backup.
    let _ = sd_notify::notify(states);
}
