//! Progress on the terminal: prints notes and progress to stderr. Results go to stdout
//! elsewhere.

use std::{
    io::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::visible;
use upright_base::{
    Error, Result,
    progress::{Progress, Stop},
};

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
    /// Units that were finished before the task started.
    resumed: usize,
    bar: ProgressBar,
    began: Instant,
    said: Instant,
}

impl Stretch {
    /// A line of progress for an output that is not a terminal, after `elapsed` seconds. The
    /// remaining time is left out while it is unknown.
    fn plain(&self, done: usize, elapsed: f64, note: &str) -> String {
        let mut text = format!("{} {done}", self.what);
        if self.total > 0 {
            text += &format!("/{}", self.total);
        }
        let here = done.saturating_sub(self.resumed);
        if self.total > done && here > 0 {
            let left = elapsed / here as f64 * (self.total - done) as f64;
            text += &format!(", {left:.0} s left");
        }
        if !note.is_empty() {
            text += &format!(" {note}");
        }
        text
    }
}

/// The remaining time behind the elapsed time of a bar; nothing while it is unknown, which
/// indicatif reports as 0.
fn remaining(eta: Duration) -> String {
    if eta.is_zero() {
        String::new()
    } else {
        format!("<{:#}", HumanDuration(eta))
    }
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

/// Whether this process prints nothing but errors.
static HUSHED: AtomicBool = AtomicBool::new(false);

/// Makes this process print nothing but errors from now on: it is a rank that is not the first.
pub(super) fn hush() {
    HUSHED.store(true, Ordering::Relaxed);
    bars().set_draw_target(ProgressDrawTarget::hidden());
}

/// Whether this process prints nothing but errors.
pub(super) fn is_hushed() -> bool {
    HUSHED.load(Ordering::Relaxed)
}

/// Prints a line to stderr, above any progress bars.
fn line(text: &str) {
    if is_hushed() {
        return;
    }
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
    /// Shows progress on stderr.
    pub(super) fn new() -> Self {
        Self { stack: Vec::new() }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Terminal {
    fn note(&mut self, text: &str) {
        line(text);
    }

    fn begin(&mut self, what: &str, total: usize) {
        let what = visible(what).replace(['\n', '\t'], " ");
        let style = ProgressStyle::with_template(
            "{prefix:>28} {bar:24} {pos}/{len} {elapsed}{remaining} {msg}",
        );
        let style = style.expect("a valid template").with_key(
            "remaining",
            |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                let _ = text.write_str(&remaining(state.eta()));
            },
        );
        let bar = ProgressBar::new(total as u64)
            .with_style(style)
            .with_prefix(what.clone());
        let bar = bars().add(bar);
        if !bars().is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        let now = Instant::now();
        self.stack.push(Stretch {
            what,
            total,
            resumed: 0,
            bar,
            began: now,
            said: now,
        });
    }

    fn resume(&mut self, done: usize) {
        if let Some(stretch) = self.stack.last_mut() {
            stretch.resumed = done;
            stretch.bar.set_position(done as u64);
            stretch.bar.reset_eta();
        }
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
        line(&stretch.plain(done, elapsed, note));
    }

    fn end(&mut self) {
        if let Some(stretch) = self.stack.pop() {
            stretch.bar.finish_and_clear();
            bars().remove(&stretch.bar);
        }
    }

    fn stop(&self) -> Stop {
        Stop::flag(stop_flag())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_remaining_time_is_not_shown() {
        let stretch = |total, resumed| Stretch {
            what: "training".to_owned(),
            total,
            resumed,
            bar: ProgressBar::hidden(),
            began: Instant::now(),
            said: Instant::now(),
        };
        let fresh = stretch(30, 0);
        assert_eq!(fresh.plain(0, 12.0, ""), "training 0/30");
        assert_eq!(
            fresh.plain(10, 12.0, "loss 1"),
            "training 10/30, 24 s left loss 1"
        );
        assert_eq!(fresh.plain(30, 12.0, ""), "training 30/30");
        // Steps of an earlier process took none of this time.
        let resumed = stretch(30, 20);
        assert_eq!(resumed.plain(20, 12.0, ""), "training 20/30");
        assert_eq!(resumed.plain(24, 12.0, ""), "training 24/30, 18 s left");
        assert_eq!(stretch(0, 0).plain(500, 12.0, ""), "training 500");
        assert_eq!(remaining(Duration::ZERO), "");
        assert_eq!(remaining(Duration::from_secs(40)), "<40s");
    }

    #[test]
    fn a_resumed_bar_starts_where_the_work_continues() {
        let mut terminal = Terminal::new();
        terminal.begin("training", 14);
        terminal.resume(12);
        let stretch = &terminal.stack[0];
        assert_eq!((stretch.bar.position(), stretch.resumed), (12, 12));
        assert_eq!(stretch.bar.eta(), Duration::ZERO);
    }
}
