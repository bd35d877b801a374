//! The log on standard error: what an operation does, for operators (`-v`), for authors (`-vv`), and for units that
//! collect lines of JSON. It names operations, nodes, snapshots, counts and durations; no secret, no key, no value and
//! no path of a user's data is ever in it.

use clap::ValueEnum;
use highwater::{Error, Result};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// An object of JSON.
    Json,
}

/// Begins the log, once in a process. Without `verbose` and `format` there is none.
///
/// Only what this project's own crates say is written: what others could say of a request is not known here.
pub(crate) fn begin(verbose: u8, format: Option<LogFormat>) -> Result<()> {
    let level = match (verbose, format) {
        (0, None) => return Ok(()),
        (0 | 1, _) => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let ours = Targets::new().with_target("highwater", level);
    let spans = if level == LevelFilter::DEBUG { FmtSpan::CLOSE } else { FmtSpan::NONE };
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_span_events(spans);
    let begun = match format {
        Some(LogFormat::Json) => {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            tracing_subscriber::registry().with(ours).with(lines).try_init()
        }
        Some(LogFormat::Text) | None => {
            let lines = lines.with_ansi(false).with_target(false);
            tracing_subscriber::registry().with(ours).with(lines).try_init()
        }
    };
    begun.map_err(|error| Error::bug("the log was begun twice").with_source(error))
}
