//! A bar on standard error, where that is a terminal and people read along.

use std::io::IsTerminal as _;

use highwater::control::Event;
use indicatif::{ProgressBar, ProgressStyle};

/// The bar; clones share it.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar that is drawn if `wanted` and standard error is a terminal.
    pub(crate) fn new(wanted: bool) -> Progress {
        let shown = wanted && std::io::stderr().is_terminal();
        Progress { bar: if shown { ProgressBar::no_length() } else { ProgressBar::hidden() } }
    }

    /// What turns events into the bar.
    pub(crate) fn sink(&self) -> impl Fn(Event) + Send + Sync + use<> {
        let bar = self.bar.clone();
        move |event| match event {
            Event::Stage { name, bytes_total } => {
                bar.reset();
                bar.set_style(style(bytes_total));
                bar.set_length(bytes_total);
                bar.set_message(name);
            }
            Event::Bytes(bytes) => bar.inc(bytes),
        }
    }

    /// Takes the bar away, before anything else is printed.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(bytes_total: u64) -> ProgressStyle {
    let template = if bytes_total == 0 {
        "{msg:10} {bytes} {elapsed}"
    } else {
        "{msg:10} [{wide_bar}] {bytes} of {total_bytes}, {eta}"
    };
    ProgressStyle::with_template(template).expect("the template is well-formed")
}
