//! The error for a value that is not finite before anything was trained.

use upright_base::Error;
use upright_engine::{Decoder, DeviceAdapter};
use upright_model::pack::Pack;

/// Names the tensor of the model or the adapter that causes it.
pub fn not_finite(
    value: impl std::fmt::Display,
    decoder: &Decoder,
    pack: &Pack,
    adapter: Option<&DeviceAdapter>,
) -> Error {
    let cause = match decoder.find_non_finite(pack, adapter) {
        Ok(Some(tensor)) => format!(": {tensor}"),
        Ok(None) => String::new(),
        Err(error) => return error,
    };
    Error::input(format!("{value} is not finite{cause}"))
        .hint("download the model or the adapter again: a file is damaged")
}
