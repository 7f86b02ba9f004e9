//! Worlds of threads: what collectives return, and what happens when a rank fails.

use std::time::{Duration, Instant};

use proptest::{collection::vec, prelude::*};
use upright_base::{Error, ErrorKind, Result, quiet};

use crate::{
    World,
    threads::{Fault, Threads, threads},
};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(250);

/// Runs `work` on every rank. Returns results in order of rank; `None` for a rank that panicked.
fn run_all<T: Send>(
    all: Vec<Threads>,
    work: impl Fn(World) -> Result<T> + Sync,
) -> Vec<Option<Result<T>>> {
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for ranks in all {
            let work = &work;
            running.push(
                scope.spawn(move || {
                    quiet::catch(|| World::new(Box::new(ranks)).and_then(work)).ok()
                }),
            );
        }
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn run<T: Send>(size: usize, work: impl Fn(World) -> Result<T> + Sync) -> Vec<Result<T>> {
    run_all(threads(size, LONG), work)
        .into_iter()
        .flatten()
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_rank_gets_what_all_gave(
        parts in vec(vec(any::<u8>(), 0..40), 1..9),
        values in vec(vec(-(1_i64 << 55)..1 << 55, 5), 8),
    ) {
        let size = parts.len();
        let mut sums = vec![0; 5];
        for mine in &values[..size] {
            for (sum, value) in sums.iter_mut().zip(mine) {
                *sum += value;
            }
        }
        let results = run(size, |world| {
            assert_eq!(world.size(), size);
            let rank = world.rank();
            assert_eq!(world.gather(&parts[rank])?, parts);
            let mut bytes = parts[rank].clone();
            world.broadcast(&mut bytes)?;
            assert_eq!(bytes, parts[0]);
            let mut mine = values[rank].clone();
            world.sum(&mut mine)?;
            assert_eq!(mine, sums);
            world.sum(&mut [])?;
            assert_eq!(world.agree(Ok(parts[rank].clone()))?, parts);
            world.same("plan", &parts[0])?;
            assert!(size == 1 || world.waited_seconds() > 0.0);
            assert!(!world.host(rank).is_empty());
            Ok(())
        });
        prop_assert_eq!(results.len(), size);
        for result in results {
            result.unwrap();
        }
    }

    #[test]
    fn all_ranks_get_the_error_of_the_lowest(fails in vec(any::<bool>(), 1..9)) {
        let results = run(fails.len(), |world| {
            let rank = world.rank();
            let mine = match fails[rank] {
                true => Err(Error::input(format!("row {rank}: no text")).hint("look")),
                false => Ok(vec![7; rank]),
            };
            let first = world.agree(mine);
            // An agreed error breaks nothing.
            assert_eq!(world.gather(&[])?.len(), world.size());
            first
        });
        let lowest = fails.iter().position(|fails| *fails);
        for result in results {
            match (lowest, result) {
                (None, Ok(all)) => prop_assert_eq!(all.len(), fails.len()),
                (Some(lowest), Err(error)) => {
                    prop_assert_eq!(error.kind, ErrorKind::Input);
                    prop_assert_eq!(&error.hint, "look");
                    let message = format!("row {lowest}: no text");
                    if fails.len() == 1 {
                        prop_assert_eq!(error.message, message);
                    } else {
                        let place = format!("rank {lowest} on ");
                        prop_assert!(error.message.starts_with(&place), "{}", error.message);
                        prop_assert!(error.message.ends_with(&message), "{}", error.message);
                    }
                }
                (_, result) => prop_assert!(false, "{result:?}"),
            }
        }
    }

    #[test]
    fn a_fault_at_any_call_ends_all_ranks(
        size in 2_usize..6,
        bad in 0_usize..6,
        call in 0_usize..9,
        fault in prop_oneof![Just(Fault::Error), Just(Fault::Panic), Just(Fault::Silence)],
    ) {
        let bad = bad % size;
        let timeout = if fault == Fault::Silence { SHORT } else { LONG };
        let mut all = threads(size, timeout);
        all[bad].fail_at(call, fault);
        let start = Instant::now();
        // Calls of the transport: 1 to open, 1, 2, 2, 1, and 1 at the end.
        let results = run_all(all, |world| {
            world.gather(b"a")?;
            world.broadcast(&mut vec![1])?;
            world.sum(&mut [1, 2])?;
            world.agree(Ok(vec![]))?;
            world.gather(b"b")?;
            Ok(())
        });
        prop_assert!(start.elapsed() < SHORT * 20);
        if call >= 8 {
            // The end of the world, or after it.
            for result in results.into_iter().flatten() {
                result.unwrap();
            }
            return Ok(());
        }
        for (rank, result) in results.into_iter().enumerate() {
            let Some(result) = result else {
                prop_assert_eq!((rank, fault), (bad, Fault::Panic));
                continue;
            };
            let message = result.unwrap_err().message;
            let expected = match (rank == bad, fault) {
                (true, _) => format!("rank {bad} fails at call {call}, as asked"),
                (false, Fault::Silence) => format!("no answer in call {call} for 0.25 s from: rank {bad}"),
                (false, _) => format!("rank {bad} has ended before call {call}"),
            };
            // A rank that saw the timeout first has ended for the others.
            let is_second = fault == Fault::Silence && message.contains("has ended before call");
            prop_assert!(is_second || message == expected, "{message}, not {expected}");
        }
    }
}

#[test]
fn an_interruption_has_no_rank_in_front() {
    let results = run(3, |world| {
        let stop = world.rank() == 2;
        world.agree(if stop {
            Err(Error::interrupted("at step 3").hint("--resume"))
        } else {
            Ok(vec![])
        })
    });
    for result in results {
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Interrupted);
        assert_eq!(error.message, "stopped at step 3");
    }
}

#[test]
fn ranks_that_differ_are_named() {
    let results = run(4, |world| {
        let is_other = world.rank() >= 2;
        world.same("base model", if is_other { b"xy" } else { b"x" })?;
        Ok(())
    });
    for result in results {
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Input);
        assert!(error.message.starts_with("rank 2 on "), "{error}");
        assert!(
            error
                .message
                .contains("has another base model than rank 0 on "),
            "{error}"
        );
    }
}

#[test]
fn calls_that_differ_are_errors_and_stay_so() {
    let results = run(3, |world| {
        let first = match world.rank() {
            1 => world.sum(&mut [1; 12]),
            _ => world.gather(b"a").map(drop),
        };
        let error = first.unwrap_err();
        assert_eq!(world.gather(&[]).unwrap_err().message, error.message);
        Err::<(), _>(error)
    });
    for result in results {
        let message = result.unwrap_err().message;
        assert!(
            message.contains("sums 12 values in call 1, but rank 0"),
            "{message}"
        );
        assert!(message.ends_with("gathers bytes in call 1"), "{message}");
    }
}

#[test]
fn sums_of_different_lengths_are_errors() {
    for result in run(2, |world| world.sum(&mut vec![0; world.rank()])) {
        let message = result.unwrap_err().message;
        assert!(
            message.contains("sums 1 values in call 1, but"),
            "{message}"
        );
    }
}

/// A rank that returns early, without telling the others why, does not let them wait.
#[test]
fn a_rank_that_ends_early_is_named() {
    let results = run(3, |world| {
        if world.rank() == 2 {
            return Ok(());
        }
        world.gather(b"a").map(drop)
    });
    for result in &results[..2] {
        let message = &result.as_ref().unwrap_err().message;
        assert!(message.starts_with("rank 2 on "), "{message}");
        assert!(message.contains("has ended, but rank 0 on "), "{message}");
    }
    assert!(results[2].is_ok());
}

#[test]
fn a_world_of_one_does_nothing() {
    let world = World::alone();
    assert_eq!((world.rank(), world.size(), world.is_first()), (0, 1, true));
    assert_eq!(world.gather(b"a").unwrap(), [b"a"]);
    let error = world.agree(Err(Error::failure("as it is"))).unwrap_err();
    assert_eq!(error.message, "as it is");
    world.same("plan", b"p").unwrap();
    let mut values = [5];
    world.sum(&mut values).unwrap();
    assert_eq!(values, [5]);
    assert_eq!(world.library(), "one process");
}

#[test]
fn a_panic_between_calls_ends_the_others() {
    let results = run_all(threads(2, LONG), |world| {
        assert_eq!(world.rank(), 0, "rank 1 panics");
        world.gather(&[]).map(drop)
    });
    let error = results[0].as_ref().unwrap().as_ref().unwrap_err();
    assert_eq!(error.message, "rank 1 has ended before call 1");
    assert!(results[1].is_none());
}

/// Whatever the others call next, they get the error of a rank that failed alone.
#[test]
fn an_error_of_one_rank_reaches_ranks_in_other_calls() {
    for kind in 0..4 {
        let mut running = Vec::new();
        for ranks in threads(3, Duration::from_secs(10)) {
            running.push(std::thread::spawn(move || {
                let world = World::new(Box::new(ranks)).unwrap();
                if world.rank() == 1 {
                    let failed = Err(Error::failure("no space").hint("free some"));
                    return world.settle::<()>(failed).unwrap_err();
                }
                let done = match kind {
                    0 => world.sum(&mut [1, 2]),
                    1 => world.same("plan", b"x"),
                    2 => world.first(|| Ok(vec![1])).map(drop),
                    _ => world.gather(b"y").map(drop),
                };
                let error = done.unwrap_err();
                let again = world.settle::<()>(Err(error.clone())).unwrap_err();
                assert_eq!(again.message, error.message);
                error
            }));
        }
        for (rank, thread) in running.into_iter().enumerate() {
            let error = thread.join().unwrap();
            assert!(error.message.contains("no space"), "{kind} {rank}: {error}");
            assert!(
                rank == 1 || error.message.starts_with("rank 1 on "),
                "{error}"
            );
            assert_eq!(error.hint, "free some");
        }
    }
}

/// An error that every rank has is not the error of a rank.
#[test]
fn an_error_of_all_ranks_names_none() {
    let mut running = Vec::new();
    for ranks in threads(3, Duration::from_secs(10)) {
        running.push(std::thread::spawn(move || {
            let world = World::new(Box::new(ranks)).unwrap();
            world.settle::<()>(Err(Error::input("rows.jsonl: missing")))
        }));
    }
    for thread in running {
        let error = thread.join().unwrap().unwrap_err();
        assert_eq!(error.message, "rows.jsonl: missing");
    }
}

#[test]
fn rank_0_decides_for_all() {
    let mut running = Vec::new();
    for ranks in threads(3, Duration::from_secs(10)) {
        running.push(std::thread::spawn(move || {
            let world = World::new(Box::new(ranks)).unwrap();
            assert_eq!(world.ranks_here(), 3);
            let rank = world.rank() as u8;
            let bytes = world.first(|| Ok(vec![rank, 7])).unwrap();
            world.settle(Ok(bytes)).unwrap()
        }));
    }
    for thread in running {
        assert_eq!(thread.join().unwrap(), [0, 7]);
    }
}

/// Work may take longer than ranks wait for an answer. An error ends it early, and names no rank if it is everywhere.
#[test]
fn slow_work_is_waited_for() {
    let endings = run_all(threads(3, SHORT), |world| {
        world.slowly(|_| {
            std::thread::sleep(3 * SHORT * world.rank() as u32);
            Ok(world.rank())
        })
    });
    for (rank, ending) in endings.into_iter().enumerate() {
        assert_eq!(ending.unwrap().unwrap(), rank);
    }
    let began = Instant::now();
    let endings = run_all(threads(3, SHORT), |world| {
        world.slowly(|stop| match world.rank() {
            1 => Err(Error::input("no model")),
            _ => {
                while !stop.is_requested() {
                    assert!(began.elapsed() < LONG);
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            }
        })
    });
    for ending in endings {
        let error = ending.unwrap().unwrap_err();
        assert!(error.message.starts_with("rank 1 on "), "{error}");
        assert!(error.message.ends_with("no model"), "{error}");
    }
    let endings = run_all(threads(3, LONG), |world| {
        world.slowly(|_| {
            std::thread::sleep(Duration::from_millis(40) * world.rank() as u32);
            Err::<(), _>(Error::input("no rows"))
        })
    });
    for ending in endings {
        assert_eq!(ending.unwrap().unwrap_err().message, "no rows");
    }
}
