//! Checks the collectives of a world against what they must return. Start it by a launcher:
//! `mpirun -n 4 target/debug/examples/ranks`.
//!
//! `ranks VALUES` sums that many values (3 million by default). `ranks fail K` returns an error
//! on the last rank before its call K, `ranks panic K` panics there, `ranks kill K` kills the
//! process, and `ranks hang K` sleeps. `ranks doctor` lists libraries.
//!
//! `RANKS` chooses what carries the ranks, and `RANK_TIMEOUT` sets the seconds that a call may wait.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use upright_base::{Error, ErrorKind, Result};
use upright_ranks::{Choice, World, mpi, nccl, open};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (count, fault) = match words[..] {
        ["doctor"] => {
            doctor();
            return ExitCode::SUCCESS;
        }
        [] => (3_000_000, None),
        [count] => (number(count), None),
        [fault, call, ..] => (1000, Some((fault, number(call)))),
    };
    let env = |name: &str| std::env::var(name).ok();
    let choice = env("RANKS").map_or(Ok(Choice::Auto), |text| text.parse());
    let timeout = Duration::from_secs(env("RANK_TIMEOUT").map_or(60, |text| number(&text) as u64));
    let world = match choice.and_then(|choice| open(choice, timeout, false, &env)) {
        Ok(world) => world,
        Err(error) => return report("no world", &error),
    };
    // The world is dropped after the report, because dropping it may end the process.
    match check(&world, count, fault) {
        Ok(line) => println!("{line}"),
        Err(error) => return report(&format!("rank {}", world.rank()), &error),
    }
    ExitCode::SUCCESS
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or(0)
}

fn report(place: &str, error: &Error) -> ExitCode {
    eprintln!("{place}: {:?}: {error}\n  hint: {}", error.kind, error.hint);
    ExitCode::from(match error.kind {
        ErrorKind::Input => 2,
        _ => 1,
    })
}

/// Lists the libraries of this machine.
fn doctor() {
    let env = |name: &str| std::env::var(name).ok();
    for found in mpi::libraries(&env) {
        match found.library {
            Ok((path, version)) => println!("{}: {version}, {}", found.name, path.display()),
            Err(problem) => println!("{}: {problem}", found.name),
        }
    }
    match nccl::library(&env) {
        Ok((path, version)) => println!("NCCL {version}, {}", path.display()),
        Err(error) => println!("{error}"),
    }
}

/// Makes all calls and checks what they return.
fn check(world: &World, count: usize, fault: Option<(&str, usize)>) -> Result<String> {
    let (rank, size) = (world.rank(), world.size());
    let mut call = 0;
    let mut before_call = || {
        call += 1;
        match fault {
            Some((fault, at)) if rank + 1 == size && at + 1 == call => fail(fault, call - 1),
            _ => Ok(()),
        }
    };
    // Some ranks have no bytes, some fit into one message, and some do not.
    for length in [0, 1, 100, 248, 249, 5000, 1_000_000] {
        let length_of = |rank: usize| {
            if rank % 3 == 1 {
                0
            } else {
                length * (rank + 1)
            }
        };
        before_call()?;
        let all = world.gather(&bytes(rank, length_of(rank)))?;
        expect("gather", all.len() == size)?;
        for (rank, theirs) in all.iter().enumerate() {
            expect("gather", *theirs == bytes(rank, length_of(rank)))?;
        }
        before_call()?;
        let mut first = bytes(rank, length + rank);
        world.broadcast(&mut first)?;
        expect("broadcast", first == bytes(0, length))?;
        before_call()?;
        let all = world.agree(Ok(bytes(rank, length)))?;
        expect("agree", all[size - 1] == bytes(size - 1, length))?;
    }
    before_call()?;
    world.same("plan", b"the same")?;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut seconds = 0.0;
    for count in [0, 1, 1000, count] {
        before_call()?;
        let mut values: Vec<i64> = (0..count).map(|index| value(rank, index)).collect();
        let start = Instant::now();
        world.sum(&mut values)?;
        seconds = start.elapsed().as_secs_f64();
        for (index, sum) in values.iter().enumerate() {
            let expected: i64 = (0..size).map(|rank| value(rank, index)).sum();
            expect("sum", *sum == expected)?;
            hash = (hash ^ sum.unsigned_abs()).wrapping_mul(0x0100_0000_01b3);
        }
    }
    // An error of one rank is told to all, and the world goes on.
    let refused = match rank + 1 == size {
        true => Err(Error::input("row 3: no text").hint("look at it")),
        false => Ok(vec![]),
    };
    let told = world.agree(refused).err();
    let told = told.is_some_and(|error| {
        error.message.ends_with("row 3: no text") && error.hint == "look at it"
    });
    expect("agree", told)?;
    let start = Instant::now();
    for _ in 0..100 {
        world.gather(b"vote")?;
    }
    let microseconds = start.elapsed().as_secs_f64() * 1e4;
    Ok(format!(
        "rank {rank} of {size} on {}: {}, hash {hash:016x}, sum of {count} {:.1} ms, vote {microseconds:.0} us, waited {:.2} s",
        world.host(rank),
        world.library(),
        seconds * 1e3,
        world.waited_seconds(),
    ))
}

/// Does what the arguments ask for.
fn fail(fault: &str, call: usize) -> Result<()> {
    match fault {
        "fail" => return Err(Error::failure(format!("asked to fail before call {call}"))),
        "panic" => panic!("asked to panic before call {call}"),
        "hang" => std::thread::sleep(Duration::from_secs(3600)),
        "kill" => {
            let process = std::process::id().to_string();
            let killed = std::process::Command::new("kill")
                .args(["-9", &process])
                .status();
            return Err(Error::failure(format!("not killed: {killed:?}")));
        }
        _ => return Err(Error::input(format!("no fault {fault}"))),
    }
    Ok(())
}

fn expect(what: &str, is_right: bool) -> Result<()> {
    match is_right {
        true => Ok(()),
        false => Err(Error::failure(format!("{what}: wrong"))),
    }
}

/// Bytes that tell ranks apart.
fn bytes(rank: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 7 + rank * 31) as u8)
        .collect()
}

/// A value of a rank, large and of either sign.
fn value(rank: usize, index: usize) -> i64 {
    let mixed = ((rank as u64) << 40 ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.cast_signed() >> 6
}
