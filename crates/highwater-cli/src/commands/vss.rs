//! `vss`: stores of nodes, each value with a version, on a server.

mod database;
mod history;
mod policy;
mod serve;
mod stats;

use highwater::{Error, Result};
use tokio::runtime::Runtime;

use crate::answer::Answer;
use crate::cli::{VssCommand, VssHistoryCommand};
use crate::context::Context;

pub(crate) fn run(context: &Context, command: &VssCommand) -> Result<Answer> {
    let runtime = Runtime::new().map_err(|error| Error::io("starting threads", error))?;
    runtime.block_on(async {
        match command {
            VssCommand::Serve(args) => serve::run(context, args).await,
            VssCommand::History(VssHistoryCommand::List(args)) => {
                history::list(context, args).await
            }
            VssCommand::History(VssHistoryCommand::Restore(args)) => {
                history::restore(context, args).await
            }
            VssCommand::Policy(args) => policy::run(context, args).await,
            VssCommand::Stats(args) => stats::run(context, args).await,
        }
    })
}
