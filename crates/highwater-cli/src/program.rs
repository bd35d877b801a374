//! From the command line to an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use highwater::{Error, Kind, Result};

use crate::answer::Answer;
use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::settings::{Environment, Settings};
use crate::{commands, confined, demo, descriptors, exit, log, output, supervisor};

/// Runs the program; a panic is a bug, and says so with the documented exit code.
pub(crate) fn main() -> ExitCode {
    descriptors::raise();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let json = asks_for_json(&arguments);
    let outcome = std::panic::catch_unwind(|| run(&arguments)).unwrap_or_else(|_| {
        Err(Error::bug(
            "the program stopped because of a bug: one of its own invariants was violated",
        )
        .with_remedy("report it with the lines above"))
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::error(&error, json);
            exit::code(error.kind())
        }
    }
}

/// Whether `--json` stands among the arguments, also where the rest of them can't be understood.
fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).take_while(|argument| *argument != "--").any(|text| text == "--json")
}

fn run(arguments: &[OsString]) -> Result<ExitCode> {
    if supervisor::is_asked_for(arguments) {
        return supervisor::run().map(|()| ExitCode::SUCCESS);
    }
    if confined::is_asked_for(arguments) {
        return confined::run().map(|()| ExitCode::SUCCESS);
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, asks_for_json(arguments)),
    };
    log::begin(cli.verbose, cli.log_format)?;
    if let Command::DemoWriter(args) = &cli.command {
        return demo::writer::run(args).map(|()| ExitCode::SUCCESS);
    }
    let settings = Settings::load(cli.config.as_deref(), &Environment::of_process())?;
    let quiet = cli.json || cli.verbose > 0 || cli.log_format.is_some();
    let context = Context::new(settings, cli.json, quiet)?;
    let answer = execute(&context, &cli.command);
    context.progress.finish();
    if let Command::Export(args) = &cli.command
        && args.output.as_deref().is_some_and(commands::is_stdio)
    {
        return Ok(told_aside(answer, cli.json));
    }
    let answer = answer?;
    output::answer(&answer, cli.json)?;
    Ok(answer.failed.map_or(ExitCode::SUCCESS, exit::code))
}

/// Standard output is taken by what was asked for: an answer, or an error, goes to standard error.
fn told_aside(answer: Result<Answer>, json: bool) -> ExitCode {
    match answer {
        Ok(answer) => {
            output::answer_aside(&answer, json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::error_aside(&error, json);
            exit::code(error.kind())
        }
    }
}

/// Help and version are answers; anything else that clap says is a wrong call.
fn usage(error: &clap::Error, json: bool) -> Result<ExitCode> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        output::help(error)?;
        return Ok(ExitCode::SUCCESS);
    }
    // What the standard library says of a number that is none.
    let text = error
        .render()
        .to_string()
        .replace("invalid digit found in string", "write it as a whole number, such as 7");
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        if !json {
            output::note(text.trim_end());
            return Ok(exit::code(Kind::Input));
        }
        return Err(Error::input("no command was given").with_remedy("try `highwater --help`"));
    }
    let (message, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let hint = if rest.trim().is_empty() { "try `highwater --help`" } else { rest.trim() };
    Err(Error::new(Kind::Input, message.trim()).with_remedy(hint.to_owned()))
}

fn execute(context: &Context, command: &Command) -> Result<Answer> {
    match command {
        Command::Demo => demo::run(context),
        Command::DemoWriter(_) => Err(Error::bug("the writer runs without a context")),
        Command::Inspect(args) => commands::inspect::run(context, args),
        Command::Init(args) => commands::init::run(context, args),
        Command::Backup(args) => commands::backup::run(context, args),
        Command::Snapshots(args) => commands::snapshots::run(context, args),
        Command::Show(args) => commands::show::run(context, args),
        Command::Diff(args) => commands::diff::run(context, args),
        Command::Check(args) => commands::check::run(context, args),
        Command::Forget(args) => commands::forget::run(context, args),
        Command::Prune(args) => commands::prune::run(context, args),
        Command::Restore(args) => commands::restore::run(context, args),
        Command::Export(args) => commands::export::run(context, args),
        Command::Import(args) => commands::import::run(context, args),
        Command::Pull(args) => commands::pull::run(context, args),
        Command::Rollback(args) => commands::rollback::run(context, args),
        Command::Recover(args) => commands::recover::run(context, args),
        Command::Key(command) => commands::key::run(context, command),
        Command::Owner(command) => commands::owner::run(context, command),
        Command::Kit(command) => commands::kit::run(context, command),
        Command::Status(args) => commands::status::run(context, args),
        Command::Guard(command) => commands::guard::run(context, command),
        Command::Run(args) => commands::run::run(context, args),
        Command::Serve(args) => commands::serve::run(context, args),
        Command::Token(command) => commands::token::run(context, command),
        Command::Vss(command) => commands::vss::run(context, command),
        Command::Replica(command) => commands::replica::run(context, command),
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
    }
}
