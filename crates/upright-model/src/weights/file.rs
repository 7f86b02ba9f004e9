//! One safetensors file, memory-mapped, with a header that has been checked against the file's
//! size.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::file_identity::FileIdentity;
use super::{Float, Matrix, Storage};
use upright_base::{Error, Result};

/// The format's own limit on its header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

const DAMAGED: &str = "the file is damaged or its download is incomplete; download it again";

/// A mapped safetensors file.
#[derive(Debug)]
pub(crate) struct TensorFile {
    /// The file, for messages.
    pub(crate) path: PathBuf,
    /// Identifies the file and its current contents.
    pub(crate) identity: Option<FileIdentity>,
    map: Arc<Mmap>,
    /// Offset of the tensors' bytes.
    start: usize,
    header: Metadata,
}

/// One tensor of a file, checked to lie inside the file.
#[derive(Clone, Debug)]
pub(crate) struct Tensor<'a> {
    file: &'a TensorFile,
    /// Name, for messages.
    pub(crate) name: String,
    /// Type of the values.
    pub(crate) dtype: Dtype,
    /// Sizes, outermost first.
    pub(crate) shape: &'a [usize],
    bytes: Range<usize>,
}

/// Reads the header of a whole safetensors file. Returns the offset of the tensors' bytes, and the
/// header; `path` is for messages.
///
/// # Errors
/// As for [`TensorFile::open`].
pub(super) fn read_header(path: &Path, file: &[u8]) -> Result<(usize, Metadata)> {
    let damaged = |problem: String| Error::file(path, problem, DAMAGED);
    let size = file.len();
    let Some((length, rest)) = file.split_first_chunk() else {
        return Err(too_short(path, size));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES || length > rest.len() as u64 {
        if file.starts_with(b"version https://git-lfs") {
            let hint = "run `git lfs pull` in the folder, or download the file";
            return Err(Error::file(
                path,
                "a git-lfs pointer, not the file itself",
                hint,
            ));
        }
        return Err(damaged(format!(
            "the header should have {length} bytes, but the file has {size}"
        )));
    }
    let (header, tensors) = rest.split_at(length as usize);
    let header: Metadata = serde_json::from_slice(header)
        .map_err(|error| damaged(format!("the safetensors header is not valid: {error}")))?;
    let (promised, held) = (header.data_len(), tensors.len());
    if promised != held {
        return Err(damaged(format!(
            "the header promises {promised} bytes of tensors, found {held}"
        )));
    }
    Ok((size - held, header))
}

fn too_short(path: &Path, size: usize) -> Error {
    Error::file(
        path,
        format!("{size} bytes, too short for a safetensors file"),
        DAMAGED,
    )
}

impl TensorFile {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// A system error, or bad input: the file is truncated, its header is not valid, or a tensor
    /// lies outside the file or overlaps another one.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(|e| Error::unreadable(path, "read", e))?;
        let size = file
            .metadata()
            .map_err(|e| Error::unreadable(path, "read", e))?
            .len();
        if size < 8 {
            return Err(too_short(path, size as usize));
        }
        // SAFETY: the map is only read, and only through `&[u8]` and `&[bf16]`, for which any bytes are valid. Another
        // process that shortens or rewrites the file meanwhile is outside of what a program can guard against; model
        // files are replaced by renaming.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::unreadable(path, "map", e))?;
        let (start, header) = read_header(path, &map)?;
        let identity = FileIdentity::of(path, &file);
        Ok(Self {
            path: path.to_owned(),
            identity,
            map: Arc::new(map),
            start,
            header,
        })
    }

    /// Bytes of all tensors.
    pub(crate) fn size(&self) -> u64 {
        (self.map.len() - self.start) as u64
    }

    /// Names of the tensors, in the order of their bytes.
    pub(crate) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The header's `__metadata__`.
    pub(crate) fn metadata(&self) -> Option<&HashMap<String, String>> {
        self.header.metadata().as_ref()
    }

    /// A tensor by name.
    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let info = self.header.info(name)?;
        let bytes = self.start + info.data_offsets.0..self.start + info.data_offsets.1;
        Some(Tensor {
            file: self,
            name: name.to_owned(),
            dtype: info.dtype,
            shape: &info.shape,
            bytes,
        })
    }
}

impl Tensor<'_> {
    /// Checks the shape against the config.
    pub(crate) fn expect(&self, shape: &[usize]) -> Result<()> {
        if self.shape == shape {
            return Ok(());
        }
        let problem = format!(
            "tensor `{}` has shape {:?}, expected {shape:?}",
            self.name, self.shape
        );
        Err(Error::file(
            &self.file.path,
            problem,
            "check that config.json and the tensors belong to the same model",
        ))
    }

    fn unsupported(&self) -> Error {
        let problem = format!(
            "tensor `{}` has type {:?}, expected BF16, F16 or F32",
            self.name, self.dtype
        );
        Error::file(
            &self.file.path,
            problem,
            "convert the model to bf16; quantized weights are not supported",
        )
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// The bytes of the values, as in the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.file.map[self.bytes.clone()]
    }

    /// Type of the values, if it is supported.
    pub(crate) fn float(&self) -> Option<Float> {
        match self.dtype {
            Dtype::F32 => Some(Float::F32),
            Dtype::F16 => Some(Float::F16),
            Dtype::BF16 => Some(Float::Bf16),
            _ => None,
        }
    }

    /// Type of the values.
    ///
    /// # Errors
    /// The type is not supported.
    pub(crate) fn expect_float(&self) -> Result<Float> {
        self.float().ok_or_else(|| self.unsupported())
    }

    /// The values as f32, exactly.
    pub(crate) fn to_f32(&self) -> Result<Vec<f32>> {
        let bytes = self.bytes();
        Ok(match self.dtype {
            Dtype::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Dtype::F16 => bytes
                .chunks_exact(2)
                .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            Dtype::BF16 => bytes
                .chunks_exact(2)
                .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            _ => return Err(self.unsupported()),
        })
    }

    /// The values as a bf16 matrix: memory-mapped if the file has bf16 at an even address, else
    /// rounded to nearest even.
    pub(crate) fn to_matrix(&self, rows: usize, cols: usize) -> Result<Matrix> {
        self.expect(&[rows, cols])?;
        let bytes = self.bytes();
        let values: Vec<bf16> = match self.dtype {
            Dtype::BF16 if bytes.as_ptr().addr().is_multiple_of(align_of::<bf16>()) => {
                let storage = Storage::Mapped {
                    map: Arc::clone(&self.file.map),
                    bytes: self.bytes.clone(),
                };
                return Ok(Matrix {
                    rows,
                    cols,
                    storage,
                });
            }
            Dtype::BF16 => bytes
                .par_chunks_exact(2)
                .map(|b| bf16::from_le_bytes([b[0], b[1]]))
                .collect(),
            Dtype::F16 => {
                let cast = |b: &[u8]| bf16::from_f32(f16::from_le_bytes([b[0], b[1]]).to_f32());
                bytes.par_chunks_exact(2).map(cast).collect()
            }
            Dtype::F32 => {
                let cast = |b: &[u8]| bf16::from_f32(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                bytes.par_chunks_exact(4).map(cast).collect()
            }
            _ => return Err(self.unsupported()),
        };
        Ok(Matrix {
            rows,
            cols,
            storage: Storage::Owned(values),
        })
    }
}
