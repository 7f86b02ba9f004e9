//! Work of several ranks. Rank 0 alone reads and writes files of a run, and the others get what they need from it. Work that consists of
//! packs is divided.

use serde::{Serialize, de::DeserializeOwned};
use upright_base::{
    Error, Result,
    progress::{Progress, Stop},
};
use upright_engine::Vector;
use upright_ranks::World;

/// Does something on rank 0 alone. The others get `None`, or its error.
pub(crate) fn on_first<T>(world: &World, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let mut done = None;
    world.first(|| {
        done = Some(work()?);
        Ok(Vec::new())
    })?;
    Ok(done)
}

/// What rank 0 decides, on every rank.
pub(crate) fn decided<T: Serialize + DeserializeOwned>(
    world: &World,
    decide: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if world.size() == 1 {
        return decide();
    }
    let unreadable = |error: serde_json::Error| Error::failure(format!("rank 0: {error}"));
    let bytes = world.first(|| serde_json::to_vec(&decide()?).map_err(unreadable))?;
    serde_json::from_slice(&bytes).map_err(unreadable)
}

/// Computes some numbers for every item, one item per rank at a time. `count` says how many an item has. `done` gets the numbers of every
/// item on every rank, in order.
///
/// # Errors
/// Those of the closures; an error of `compute` on one rank is an error of all. A rank sent another number of values, because it does
/// something else.
pub fn in_rounds<T>(
    world: &World,
    items: &[T],
    count: &dyn Fn(&T) -> usize,
    compute: &mut dyn FnMut(&T) -> Result<Vec<f64>>,
    done: &mut dyn FnMut(&T, &[f64]) -> Result<()>,
) -> Result<()> {
    for items in items.chunks(world.size()) {
        let mut compute_mine = || -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            if let Some(item) = items.get(world.rank()) {
                for number in compute(item)? {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
            }
            Ok(bytes)
        };
        let all = world.agree(compute_mine())?;
        for (rank, (item, bytes)) in items.iter().zip(&all).enumerate() {
            if bytes.len() != 8 * count(item) {
                let place = world.place(rank);
                return Err(Error::failure(format!("{place} computes something else"))
                    .hint("start all ranks with the same program, arguments and files"));
            }
            let mut numbers = Vec::with_capacity(bytes.len() / 8);
            for number in bytes.as_chunks().0 {
                numbers.push(f64::from_le_bytes(*number));
            }
            done(item, &numbers)?;
        }
    }
    Ok(())
}

/// Gives every rank the values that rank 0 has. Their number is the same everywhere.
pub(crate) fn share_values(world: &World, values: &mut [f32]) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let mut bytes = Vec::new();
    if world.is_first() {
        bytes.reserve(4 * values.len());
        for value in values.iter() {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
    world.broadcast(&mut bytes)?;
    let (found, rest) = bytes.as_chunks();
    if found.len() != values.len() || !rest.is_empty() {
        return Err(Error::failure(format!(
            "rank 0 has {} values where this rank has {}",
            found.len(),
            values.len()
        )));
    }
    for (value, bytes) in values.iter_mut().zip(found) {
        *value = f32::from_le_bytes(*bytes);
    }
    Ok(())
}

/// The same for values on a device.
pub(crate) fn share_vector(world: &World, vector: &mut Vector) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let mut values = vector.read()?.into_owned();
    share_values(world, &mut values)?;
    vector.write(&values)
}

/// The progress of a rank that is not the first: nobody is told of it, but the rank may still be asked to stop.
pub(crate) struct Follower(pub(crate) Stop);

impl Progress for Follower {
    fn stop(&self) -> Stop {
        self.0.clone()
    }
}

/// Forwards notes, and adds a second request to stop.
pub(crate) struct Unless<'o> {
    pub(crate) observer: &'o mut dyn Progress,
    pub(crate) stop: &'o Stop,
}

impl Progress for Unless<'_> {
    fn note(&mut self, text: &str) {
        self.observer.note(text);
    }

    fn stop(&self) -> Stop {
        self.observer.stop().or(self.stop.clone())
    }
}
