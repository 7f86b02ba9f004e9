//! What rank 0 does for all ranks: files are read and written by rank 0, and the others get what they need from it.

use serde::{Serialize, de::DeserializeOwned};
use upright_base::{Error, Result, observer::Observer};
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

/// The observer of a rank that is not the first: it is told nothing, but may still request a stop.
pub(crate) struct Follower<'o>(pub(crate) &'o mut dyn Observer);

impl Observer for Follower<'_> {
    fn stop_requested(&self) -> bool {
        self.0.stop_requested()
    }
}
