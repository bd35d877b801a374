//! `man`: the manual pages, one for each command.

use clap::CommandFactory as _;
use highwater::{Error, Result};
use serde_json::json;

use crate::answer::Answer;
use crate::cli::{Cli, ManArgs};
use crate::{format, places};

pub(crate) fn run(args: &ManArgs) -> Result<Answer> {
    let failed = |error| Error::io("the manual pages", error).with_entry(places::text(&args.dir));
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(&args.dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("highwater") && name.ends_with(".1") {
            pages.push(name.into_owned());
        }
    }
    pages.sort();
    let count = format::count(pages.len() as u64, "manual page", "manual pages");
    let human = format!("{count} in {}", places::text(&args.dir));
    Ok(Answer::new(json!({"dir": places::text(&args.dir), "pages": pages}), human))
}
