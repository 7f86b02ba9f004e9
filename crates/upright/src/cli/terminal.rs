//! The terminal as an observer: notes and progress on stderr, results on stdout.

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

/// How often work is reported where there is no terminal to draw on.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How often a bar's time moves on between two reports of progress: a step can take minutes.
const TICK: Duration = Duration::from_millis(500);

/// Progress bars where stderr is a terminal, a line now and then where it is not.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Stretches of work, the innermost last.
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

/// Set by SIGINT and SIGTERM; a second signal ends the process at once.
fn stop_flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// All bars of the process; hidden where stderr is no terminal, or one that cannot draw.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// A line on stderr; where bars are drawn, above them.
fn line(text: &str) {
    let text = &*visible(text);
    if bars().is_hidden() {
        let _ = writeln!(std::io::stderr(), "{text}");
    } else {
        let _ = bars().println(text);
    }
}

/// From now on a first SIGINT or SIGTERM asks the run to save itself and leave, and a second one ends it.
pub(super) fn catch_signals() -> Result<()> {
    let unwatched = |error| Error::failure(format!("cannot watch for signals: {error}"));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(stop_flag()))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(stop_flag())))
            .map_err(unwatched)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(unwatched)?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            line("stopping after what is in progress; a second signal ends it at once");
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
