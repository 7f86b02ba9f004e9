//! The terminal as an observer: prints notes and progress to stderr. Results go to stdout
//! elsewhere.

use std::{
    io::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::visible;
use upright_base::{Error, Result, observer::Observer};

/// Interval of progress lines if stderr is not a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Refresh interval of the elapsed time of a bar, because a step can take minutes.
const TICK: Duration = Duration::from_millis(500);

/// Progress bars if stderr is a terminal, otherwise a line every [`PLAIN_INTERVAL`].
#[derive(Debug)]
pub(super) struct Terminal {
    /// Nested stretches of work, innermost last.
    stack: Vec<Stretch>,
}

#[derive(Debug)]
struct Stretch {
    what: String,
    total: usize,
    bar: ProgressBar,
    began: Instant,
    said: Instant,
}

/// Set by SIGINT and SIGTERM; a second signal stops the process immediately.
fn stop_flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// All bars of the process; hidden if stderr is not a terminal that can draw them.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// Prints a line to stderr, above any progress bars.
fn line(text: &str) {
    let text = &*visible(text);
    if bars().is_hidden() {
        let _ = writeln!(std::io::stderr(), "{text}");
    } else {
        let _ = bars().println(text);
    }
}

/// Installs the signal handlers: the first SIGINT or SIGTERM asks the run to save and stop, the
/// second stops the process.
pub(super) fn catch_signals() -> Result<()> {
    let unwatched = |error| Error::failure(format!("cannot install signal handlers: {error}"));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(stop_flag()))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(stop_flag())))
            .map_err(unwatched)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(unwatched)?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            line(
                "finishing the work in progress, then stopping; a second signal stops immediately",
            );
        }
    });
    Ok(())
}

impl Terminal {
    /// An observer on stderr.
    pub(super) fn new() -> Self {
        Self { stack: Vec::new() }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for Terminal {
    fn note(&mut self, text: &str) {
        line(text);
    }

    fn begin(&mut self, what: &str, total: usize) {
        let what = visible(what).replace(['\n', '\t'], " ");
        let style =
            ProgressStyle::with_template("{prefix:>28} {bar:24} {pos}/{len} {elapsed}<{eta} {msg}");
        let bar = ProgressBar::new(total as u64)
            .with_style(style.expect("a valid template"))
            .with_prefix(what.clone());
        let bar = bars().add(bar);
        if !bars().is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        let now = Instant::now();
        self.stack.push(Stretch {
            what,
            total,
            bar,
            began: now,
            said: now,
        });
    }

    fn advance(&mut self, done: usize, note: &str) {
        let Some(stretch) = self.stack.last_mut() else {
            return;
        };
        if !bars().is_hidden() {
            stretch.bar.set_position(done as u64);
            stretch
                .bar
                .set_message(visible(note).replace(['\n', '\t'], " "));
            return;
        }
        if stretch.said.elapsed() < PLAIN_INTERVAL {
            return;
        }
        stretch.said = Instant::now();
        let elapsed = stretch.began.elapsed().as_secs_f64();
        let left = elapsed / done.max(1) as f64 * stretch.total.saturating_sub(done) as f64;
        let text = format!(
            "{} {done}/{}, {left:.0} s left {note}",
            stretch.what, stretch.total
        );
        line(text.trim_end());
    }

    fn end(&mut self) {
        if let Some(stretch) = self.stack.pop() {
            stretch.bar.finish_and_clear();
            bars().remove(&stretch.bar);
        }
    }

    fn stop_requested(&self) -> bool {
        stop_flag().load(Ordering::Relaxed)
    }
}
