//! A parallel map over indices. Results are in the order of the indices, whichever thread computed
//! them.

use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use crate::Result;

/// Maximum time between two calls of `progress`, which also tell a caller that it may have to stop.
const TICK: Duration = Duration::from_millis(250);

/// Runs `work` on the indices 0, 1, .. `count - 1`, in that order, on `threads` threads. `progress`
/// receives the number of finished indices, and is also called while none finishes.
///
/// # Errors
/// The error of the smallest index that has one.
pub fn map<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let mut results: Vec<Option<Result<T>>> = (0..count).map(|_| None).collect();
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for _ in 0..threads.clamp(1, count.max(1)) {
            let (send, next, work) = (send.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || send.send((index, work(index))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut done = 0;
        loop {
            match receive.recv_timeout(TICK) {
                Ok((index, result)) => {
                    results[index] = Some(result);
                    done += 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            progress(done);
        }
    });
    results
        .into_iter()
        .map(|result| result.expect("every index was worked on"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn results_stand_in_order_for_any_number_of_threads() {
        for (count, threads) in [(0, 4), (1, 4), (100, 1), (100, 7), (100, 0)] {
            let mut done = 0;
            let squares = map(count, threads, |i| Ok(i * i), &mut |n| done = n).unwrap();
            assert_eq!(squares, (0..count).map(|i| i * i).collect::<Vec<_>>());
            assert_eq!(done, count);
        }
    }

    #[test]
    fn no_more_threads_than_asked_for_are_at_work() {
        for threads in [1, 3] {
            let mut at_work = map(
                64,
                threads,
                |_| Ok(std::thread::current().id()),
                &mut |_| {},
            )
            .unwrap();
            at_work.sort_by_key(|id| format!("{id:?}"));
            at_work.dedup();
            assert!(at_work.len() <= threads, "{at_work:?}");
        }
    }

    #[test]
    fn the_first_error_is_told() {
        let work = |i| {
            if i % 10 == 7 {
                Err(Error::failure(format!("at {i}")))
            } else {
                Ok(i)
            }
        };
        assert_eq!(map(50, 3, work, &mut |_| {}).unwrap_err().message, "at 7");
    }
}
