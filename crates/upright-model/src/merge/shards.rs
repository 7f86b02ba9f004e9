//! The files of a merged model, laid out as in transformers: in the model's order, none above the
//! maximum size.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use rayon::prelude::*;
use serde_json::json;

use super::{Changes, Merge, MergeOptions, MergedFiles, overflow};
use crate::weights::Float;
use crate::weights::file::Tensor;
use crate::weights::header::{Entry, header};
use crate::weights::names::is_buffer;
use upright_base::{Error, Result, files};

/// Values that are computed at once.
const STRETCH: usize = 1 << 20;

/// A tensor of the model, and its type in the merged model.
struct Part<'s> {
    tensor: Tensor<'s>,
    /// Name in the whole model.
    whole: String,
    /// Name of the type in safetensors.
    dtype: String,
    bytes: usize,
}

/// See [`Merge::write`].
pub(super) fn write(
    merge: &Merge<'_>,
    out: &Path,
    options: &MergeOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Option<MergedFiles>> {
    let shards = plan(merge, options);
    let total: u64 = shards.iter().flatten().map(|part| part.bytes as u64).sum();
    let name = |number: usize| match shards.len() {
        1 => "model.safetensors".to_owned(),
        count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    };
    let (mut done, mut changes) = (0, Changes::default());
    for (number, parts) in shards.iter().enumerate() {
        let path = out.join(name(number));
        let file = files::create(&path)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let entries = parts.iter().map(|part| Entry {
            name: &part.tensor.name,
            dtype: &part.dtype,
            shape: part.tensor.shape,
            bytes: part.bytes,
        });
        let unwritten = |error| Error::io(&path, "write", error);
        file.write_all(&header(&[("format", "pt")], entries))
            .map_err(unwritten)?;
        for part in parts {
            let go_on = stretches(merge, part, options.dtype, &mut changes, &mut |bytes| {
                file.write_all(bytes).map_err(unwritten)?;
                done += bytes.len() as u64;
                Ok(progress(done, total))
            })?;
            if !go_on {
                return Ok(None);
            }
        }
        let file = file
            .into_inner()
            .map_err(|error| unwritten(error.into_error()))?;
        file.sync_all().map_err(unwritten)?;
    }
    let mut names: Vec<String> = (0..shards.len()).map(name).collect();
    if shards.len() > 1 {
        let places: BTreeMap<&str, &str> = shards
            .iter()
            .zip(&names)
            .flat_map(|(parts, name)| parts.iter().map(|part| (&part.tensor.name[..], &name[..])))
            .collect();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
        let text = serde_json::to_string_pretty(&index).expect("strings and numbers become JSON");
        let path = out.join("model.safetensors.index.json");
        files::write_atomic(&path, (text + "\n").as_bytes())?;
        names.push("model.safetensors.index.json".into());
    }
    Ok(Some(MergedFiles {
        names,
        bytes: total,
        rounding: changes.rounding(),
    }))
}

/// Assigns every tensor to a file.
fn plan<'s>(merge: &'s Merge<'_>, options: &MergeOptions) -> Vec<Vec<Part<'s>>> {
    let source = &merge.source;
    let mut shards: Vec<Vec<Part<'s>>> = vec![Vec::new()];
    let mut held = 0;
    for (number, file) in source.files.iter().enumerate() {
        for name in file
            .names()
            .iter()
            .filter(|name| source.places.get(*name) == Some(&number))
        {
            let Some(tensor) = file.tensor(name) else {
                continue;
            };
            let whole = format!("{}{name}", source.lacking);
            let (dtype, bytes) = match (tensor.float(), options.dtype) {
                (Some(_), Some(dtype)) if !is_buffer(merge.config.family, &whole) => (
                    dtype.name().to_owned(),
                    tensor.shape.iter().product::<usize>() * dtype.size(),
                ),
                _ => (tensor.dtype.to_string(), tensor.bytes().len()),
            };
            if held > 0 && held + bytes as u64 > options.max_shard_bytes {
                shards.push(Vec::new());
                held = 0;
            }
            held += bytes as u64;
            shards.last_mut().expect("one at least").push(Part {
                tensor,
                whole,
                dtype,
                bytes,
            });
        }
    }
    // Wide values first, so that every tensor begins at a multiple of its values' size.
    for parts in &mut shards {
        let width =
            |part: &Part<'_>| part.bytes / part.tensor.shape.iter().product::<usize>().max(1);
        parts.sort_by_key(|part| std::cmp::Reverse(width(part)));
    }
    shards
}

/// Passes the bytes of a tensor to `write`, some at a time, and adds up the changes by merging.
/// Returns false if `write` requested a stop.
fn stretches(
    merge: &Merge<'_>,
    part: &Part<'_>,
    dtype: Option<Float>,
    changes: &mut Changes,
    write: &mut dyn FnMut(&[u8]) -> Result<bool>,
) -> Result<bool> {
    let as_it_is = |write: &mut dyn FnMut(&[u8]) -> Result<bool>| {
        for bytes in part.tensor.bytes().chunks(4 * STRETCH) {
            if !write(bytes)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let Some(float) = part
        .tensor
        .float()
        .filter(|_| !is_buffer(merge.config.family, &part.whole))
    else {
        return as_it_is(write);
    };
    let dtype = dtype.unwrap_or(float);
    let merged = merge.merged(&part.whole, part.tensor.clone(), merge.adapters.len())?;
    if !merged.changes() && dtype == float {
        return as_it_is(write);
    }
    // A row of a matrix is computed as a whole; other tensors have no rows.
    let len: usize = part.tensor.shape.iter().product();
    let cols = if merged.changes() {
        part.tensor.shape[1]
    } else {
        STRETCH.min(len.max(1))
    };
    let stretch = (STRETCH / cols).max(1) * cols;
    let mut bytes = Vec::new();
    for start in (0..len).step_by(stretch) {
        let count = stretch.min(len - start);
        bytes.resize(count * dtype.size(), 0);
        let rows: Vec<std::result::Result<Changes, f32>> = bytes
            .par_chunks_mut(cols * dtype.size())
            .enumerate()
            .map_init(
                || [(); 2].map(|()| vec![0.0; cols]),
                |[row, delta], (i, into)| {
                    let n = into.len() / dtype.size();
                    let first = start + i * cols;
                    merged.values(first, &mut row[..n]);
                    let scale = merged
                        .changes()
                        .then(|| merged.add(first / cols, &mut row[..n], &mut delta[..n]))
                        .flatten();
                    for (value, into) in row.iter().zip(into.chunks_exact_mut(dtype.size())) {
                        dtype.put(*value, into);
                    }
                    if let Some(value) = row[..n]
                        .iter()
                        .find(|value| !dtype.round(**value).is_finite())
                    {
                        return Err(*value);
                    }
                    Ok(scale
                        .map_or_else(Changes::default, |scale| changed(row, delta, scale, dtype)))
                },
            )
            .collect();
        for row in rows {
            changes.add(row.map_err(|value| overflow(&part.tensor, value, dtype))?);
        }
        if !write(&bytes)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The changes of a row by its last summand, `scale * delta`, and by rounding.
fn changed(row: &[f32], delta: &[f32], scale: f32, dtype: Float) -> Changes {
    let square = |value: f64| value * value;
    Changes {
        wanted: delta
            .iter()
            .map(|delta| square(f64::from(scale) * f64::from(*delta)))
            .sum(),
        rounded: row
            .iter()
            .map(|value| square(f64::from(dtype.round(*value)) - f64::from(*value)))
            .sum(),
    }
}
