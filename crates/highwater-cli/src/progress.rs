//! A line on standard error that tells how far an operation is, where that is a terminal and people read along.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format;

/// How often the line is drawn in a second.
const DRAWN_HZ: u8 = 5;

/// The bar; clones share it.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar that is drawn if `wanted` and standard error is a terminal.
    pub(crate) fn new(wanted: bool) -> Progress {
        let shown = wanted && std::io::stderr().is_terminal();
        let target = match shown {
            true => ProgressDrawTarget::stderr_with_hz(DRAWN_HZ),
            false => ProgressDrawTarget::hidden(),
        };
        Progress { bar: ProgressBar::with_draw_target(None, target) }
    }

    /// What turns events into the bar.
    pub(crate) fn sink(&self) -> impl Fn(Event) + Send + Sync + use<> {
        let bar = self.bar.clone();
        let files = Arc::new(AtomicU64::new(0));
        move |event| match event {
            Event::Stage { name, bytes_total } => {
                // The line may be drawn at each step: a stage that has ended is not shown at its beginning.
                bar.set_style(style(bytes_total));
                bar.set_prefix(name);
                bar.set_message("");
                bar.reset();
                bar.set_length(bytes_total);
                files.store(0, Ordering::Relaxed);
            }
            Event::Bytes(bytes) => bar.inc(bytes),
            Event::File(_) if bar.is_hidden() => {}
            Event::File(path) => {
                let number = files.fetch_add(1, Ordering::Relaxed) + 1;
                bar.set_message(format!("{}, {path}", format::count(number, "file", "files")));
            }
        }
    }

    /// Takes the bar away, before anything else is printed.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Fields of one width each, so that nothing jumps; what does not fit into the line is cut.
fn style(bytes_total: u64) -> ProgressStyle {
    let template = if bytes_total == 0 {
        "{prefix:8} {binary_bytes:>11} {elapsed:>4}  {wide_msg}"
    } else {
        "{prefix:8} {percent:>3} % of {binary_total_bytes:>11}  {binary_bytes_per_sec:>13}  {eta:>4} left  {wide_msg}"
    };
    ProgressStyle::with_template(template).expect("the template is well-formed")
}
