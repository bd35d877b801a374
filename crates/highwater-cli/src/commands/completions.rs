//! `completions`: the script that a shell loads.

use clap::CommandFactory as _;
use highwater::{Error, Result};
use serde_json::json;

use crate::answer::Answer;
use crate::cli::{Cli, CompletionsArgs};

pub(crate) fn run(args: &CompletionsArgs) -> Result<Answer> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "highwater", &mut script);
    let script =
        String::from_utf8(script).map_err(|_| Error::bug("the completions are not UTF-8"))?;
    let document = json!({"shell": args.shell.to_string(), "script": script});
    Ok(Answer::new(document, script.trim_end()))
}
