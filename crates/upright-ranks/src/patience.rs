//! Waiting for other ranks: how often to ask, and the error when they do not answer.

use std::time::Duration;

use upright_base::{Error, Result};

/// How long a call is polled without a pause, before the processor is left to others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience(Duration);

/// For the first part of a call: other ranks may still be computing.
pub(crate) const VOTE: Patience = Patience(Duration::from_micros(200));

/// For what follows: all ranks are here, and bytes may move only while the library is asked.
pub(crate) const DATA: Patience = Patience(Duration::from_secs(2));

impl Patience {
    /// Pauses between two questions about a call that has taken `waited`: not at all at first, then
    /// for 1/16 of the time, at most 1 ms.
    ///
    /// # Errors
    /// The call has taken longer than `timeout`.
    pub(crate) fn pause(self, waited: Duration, timeout: Duration) -> Result<()> {
        if waited > timeout {
            return Err(timed_out(timeout));
        }
        match waited.checked_sub(self.0) {
            None => std::thread::yield_now(),
            Some(over) => {
                let (least, most) = (Duration::from_micros(20), Duration::from_millis(1));
                std::thread::sleep((over / 16).clamp(least, most));
            }
        }
        Ok(())
    }
}

/// The error about ranks that do not answer.
fn timed_out(timeout: Duration) -> Error {
    let seconds = timeout.as_secs_f64();
    Error::failure(format!(
        "the other ranks have not answered for {seconds} s, the limit that --rank-timeout sets"
    ))
    .hint("a rank has died or hangs: see the launcher's messages, then run the same command with --resume to continue")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_says_what_sets_it() {
        let timeout = Duration::from_millis(1500);
        VOTE.pause(timeout, timeout).unwrap();
        let error = VOTE.pause(timeout * 2, timeout).unwrap_err();
        let message = "have not answered for 1.5 s, the limit that --rank-timeout sets";
        assert!(error.message.contains(message), "{error}");
        assert!(error.hint.contains("--resume"));
    }
}
