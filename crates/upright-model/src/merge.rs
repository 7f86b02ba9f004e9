//! Merges adapters into a model's weights: `W + scale B A` in f32, rounded once, a stretch of rows
//! at a time. A model of any size takes no more memory than a stretch.

mod shards;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::SystemTime;

use crate::adapter::{Adapter, LoraTarget};
use crate::config::DecoderConfig;
use crate::weights::Float;
use crate::weights::digest::{self, Digest, DigestStore, Progress};
use crate::weights::file::{Tensor, TensorFile};
use crate::weights::fingerprint::{Collector, Fingerprint};
use crate::weights::names::tensors;
use crate::weights::open::Source;
use upright_base::{Error, Result};

/// A model folder and the adapters to merge into it, in order. Each adapter is merged into the
/// result of the earlier merges, rounded to the type of the model's files: that is the model it was
/// trained on.
pub struct Merge<'a> {
    source: Source,
    config: &'a DecoderConfig,
    adapters: &'a [&'a Adapter],
}

/// How a merged model is written.
#[derive(Clone, Copy, Debug)]
pub struct MergeOptions {
    /// Type of floating-point values; `None` keeps the type of each tensor in the model's files.
    pub dtype: Option<Float>,
    /// Maximum bytes of tensors per file; a larger tensor gets its own file.
    pub max_shard_bytes: u64,
}

/// The written files.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedFiles {
    /// File names: one `model.safetensors`, or numbered files and their index.
    pub names: Vec<String>,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Relative rounding error of the last adapter: the norm of the change by the last rounding (to
    /// the written types) over the norm of the change by the last adapter, over all matrices of
    /// that adapter. 0 if the adapter changes nothing. Earlier adapters were also rounded in the
    /// model that the last adapter was trained on.
    pub rounding: f64,
}

/// Sums of squares, over the values that the last adapter changes.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    /// Of the changes by the adapter.
    wanted: f64,
    /// Of the changes by rounding afterwards.
    rounded: f64,
}

impl Changes {
    fn add(&mut self, other: Self) {
        self.wanted += other.wanted;
        self.rounded += other.rounded;
    }

    /// See [`MergedFiles::rounding`].
    fn rounding(self) -> f64 {
        if self.wanted > 0.0 {
            (self.rounded / self.wanted).sqrt()
        } else {
            0.0
        }
    }
}

/// A tensor with the adapters to merge into it.
struct Merged<'s> {
    tensor: Tensor<'s>,
    /// Type of its values in the file.
    float: Float,
    /// For each adapter, its pair on this tensor's linear.
    pairs: Vec<Option<Pair<'s>>>,
}

/// One adapter's A and B on one linear.
struct Pair<'s> {
    target: &'s LoraTarget,
    /// A, `[R, inputs]`.
    a: &'s [f32],
    /// B, `[outputs, R]`.
    b: &'s [f32],
}

impl<'a> Merge<'a> {
    /// Maps the model's files; adapters must have been read for `config`.
    ///
    /// # Errors
    /// As for [`crate::weights::Weights::open`]: a file is missing or damaged, or a tensor is
    /// missing or has the wrong shape.
    pub fn open(
        dir: &Path,
        config: &'a DecoderConfig,
        adapters: &'a [&'a Adapter],
    ) -> Result<Self> {
        let merge = Self {
            source: Source::open(dir, config)?,
            config,
            adapters,
        };
        for (name, shape) in tensors(config) {
            let tensor = merge.tensor(&name)?;
            tensor.expect(&shape)?;
            tensor.expect_float()?;
        }
        merge.source.refuse_second_head(config)?;
        Ok(merge)
    }

    /// The fingerprint of the model with its first `count` adapters merged: equal to
    /// [`fingerprint`] of the files that [`Merge::write`] writes with `dtype`. Digests of the
    /// model's own files are kept in `store`. Runs on the current rayon pool.
    ///
    /// # Errors
    /// None for a folder that opened, unless its files change meanwhile. Returns `None` if
    /// `progress` requested a stop.
    pub fn fingerprint(
        &self,
        count: usize,
        dtype: Option<Float>,
        store: Option<&dyn DigestStore>,
        progress: &mut Progress<'_>,
    ) -> Result<Option<Fingerprint>> {
        let tensors = tensors(self.config);
        let files = &self.source.files;
        let total = files.iter().map(TensorFile::size).sum();
        let mut done = 0;
        let mut known = Vec::new();
        for file in files {
            let digests = digest::of_file(file, store, SystemTime::now(), &mut |bytes| {
                done += bytes;
                progress(done, total)
            });
            let Some(digests) = digests else {
                return Ok(None);
            };
            known.push(digests);
        }
        let mut collector = Collector::default();
        for (name, shape) in tensors {
            let merged = self.merged(&name, self.tensor(&name)?, count)?;
            let held = dtype.unwrap_or(merged.float);
            let is_matrix = shape.len() == 2;
            let digest = if merged.changes() || held != merged.float {
                merged.digest(held)
            } else {
                let file = self.source.places[&merged.tensor.name];
                known[file][&merged.tensor.name]
            };
            collector.add(&name, &shape, digest, |index| {
                let value = held.round(merged.value(index));
                if is_matrix {
                    Float::Bf16.round(value)
                } else {
                    value
                }
            });
            if !progress(total, total) {
                return Ok(None);
            }
        }
        Ok(Some(collector.finish(self.config)))
    }

    /// Writes the model with all adapters merged to an existing folder, every tensor under its name
    /// in the model's files. `progress` gets the bytes done and the total, and returns whether to
    /// continue.
    ///
    /// # Errors
    /// A system error, or a value does not fit into the requested type. Returns `None` if
    /// `progress` requested a stop. After a stop or an error, the written files are not a model.
    pub fn write(
        &self,
        out: &Path,
        options: &MergeOptions,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Option<MergedFiles>> {
        shards::write(self, out, options, progress)
    }

    /// A tensor by the first of its names.
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let heads = self.config.family.tensors.heads;
        self.source.tensor(if name == heads[0] {
            self.source.head_name(heads)?
        } else {
            name
        })
    }

    /// A tensor by its name in the whole model, with the first `count` adapters to merge into it.
    fn merged<'s>(&'s self, name: &str, tensor: Tensor<'s>, count: usize) -> Result<Merged<'s>> {
        let float = tensor.expect_float()?;
        let module = name.strip_suffix(".weight");
        let pair = |adapter: &&'s Adapter| {
            let target = adapter
                .layout
                .targets
                .iter()
                .find(|target| Some(&target.module[..]) == module)?;
            Some(Pair {
                target,
                a: &adapter.parameters[target.a()],
                b: &adapter.parameters[target.b()],
            })
        };
        let pairs = self.adapters[..count].iter().map(pair).collect();
        Ok(Merged {
            tensor,
            float,
            pairs,
        })
    }
}

/// The fingerprint of the model in a folder; see [`Merge::fingerprint`].
///
/// # Errors
/// As for [`Merge::open`]. Returns `None` if `progress` requested a stop.
pub fn fingerprint(
    dir: &Path,
    config: &DecoderConfig,
    store: Option<&dyn DigestStore>,
    progress: &mut Progress<'_>,
) -> Result<Option<Fingerprint>> {
    Merge::open(dir, config, &[])?.fingerprint(0, None, store, progress)
}

impl Merged<'_> {
    /// The digest of the merged values, stored as `held` and then read by the engine.
    fn digest(&self, held: Float) -> Digest {
        let is_matrix = self.tensor.shape.len() == 2;
        let (rows, cols) = digest::rows_and_cols(self.tensor.shape);
        digest::of_rows(rows, cols, |rows, bytes| {
            let mut row = vec![0.0; cols];
            let mut delta = vec![0.0; cols];
            for index in rows {
                self.values(index * cols, &mut row);
                if self.changes() {
                    self.add(index, &mut row, &mut delta);
                }
                for value in &row {
                    digest::put(held.round(*value), is_matrix, bytes);
                }
            }
        })
    }

    /// The file's values from element `first` on.
    fn values(&self, first: usize, into: &mut [f32]) {
        let bytes = self.tensor.bytes();
        for (i, value) in into.iter_mut().enumerate() {
            *value = self.float.get(bytes, first + i);
        }
    }

    /// Whether any adapter changes the tensor.
    fn changes(&self) -> bool {
        self.pairs.iter().any(Option::is_some)
    }

    /// Merges the adapters into `row`, row `index` of the matrix; `delta` is scratch memory of the
    /// same length. The last result is not rounded. If the last adapter has a pair here, returns
    /// its scale and leaves its unscaled change in `delta`.
    fn add(&self, index: usize, row: &mut [f32], delta: &mut [f32]) -> Option<f32> {
        for (number, pair) in self.pairs.iter().enumerate() {
            if number > 0 {
                row.iter_mut()
                    .for_each(|value| *value = self.float.round(*value));
            }
            let Some(Pair { target, a, b }) = pair else {
                continue;
            };
            delta.fill(0.0);
            for (k, factor) in b[index * target.rank..][..target.rank].iter().enumerate() {
                let a = &a[k * target.inputs..][..target.inputs];
                delta
                    .iter_mut()
                    .zip(a)
                    .for_each(|(sum, value)| *sum += factor * value);
            }
            row.iter_mut()
                .zip(&*delta)
                .for_each(|(value, delta)| *value += target.scale * delta);
        }
        self.pairs.last()?.as_ref().map(|pair| pair.target.scale)
    }

    /// Element `index` of the tensor, by the same arithmetic as [`Merged::add`].
    fn value(&self, index: usize) -> f32 {
        let mut value = self.float.get(self.tensor.bytes(), index);
        for (number, pair) in self.pairs.iter().enumerate() {
            if number > 0 {
                value = self.float.round(value);
            }
            let Some(Pair { target, a, b }) = pair else {
                continue;
            };
            let (row, col) = (index / target.inputs, index % target.inputs);
            let product = |k: usize| b[row * target.rank + k] * a[k * target.inputs + col];
            let delta = (0..target.rank).fold(0.0, |sum, k| sum + product(k));
            value += target.scale * delta;
        }
        value
    }
}

/// The error for a value that the requested type cannot represent.
fn overflow(tensor: &Tensor<'_>, value: f32, dtype: Float) -> Error {
    let problem = format!(
        "tensor `{}` has the value {value} after merging, which {} cannot represent",
        tensor.name,
        dtype.name()
    );
    Error::file(
        tensor.path(),
        problem,
        "write the merged model as bf16 or f32",
    )
}
