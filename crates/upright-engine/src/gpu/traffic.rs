//! Bytes that a launch reads and writes in global memory, from its arguments. What several blocks read counts once: caches are meant
//! to serve the rest.

use super::device::Arg;

/// A number among the arguments.
fn number(args: &[Arg], index: usize) -> u64 {
    match args.get(index) {
        Some(Arg::I32(number)) => u64::from(number.unsigned_abs()),
        Some(Arg::U64(number)) => *number,
        _ => panic!("argument {index} is a size"),
    }
}

/// Bytes of a launch; 0 for attention, whose tiles are on the device.
///
/// # Panics
/// If the kernel is not known here.
pub(super) fn bytes(kernel: &str, grid: [u32; 3], args: &[Arg]) -> u64 {
    let n = |index| number(args, index);
    let rows = u64::from(grid[0]);
    // Columns of queries, keys and values, and of queries and keys.
    let heads = |first: usize| {
        let (queries, keys, size) = (n(first), n(first + 1), n(first + 2));
        ((queries + 2 * keys) * size, (queries + keys) * size)
    };
    let ranks: u64 = match kernel.rsplit('_').next() {
        Some("16") => 16,
        Some("32") => 32,
        _ => 64,
    };
    match kernel {
        _ if kernel.starts_with("attention_") => 0,
        "rms_norm_forward" => rows * (4 * n(3) + 2 * n(5)),
        "layer_norm_forward" => rows * (4 * n(4) + 2 * n(6)),
        "rms_norm_backward" | "layer_norm_backward" => rows * (16 * n(5) + 2 * n(7)),
        "gather_embeddings" => rows * (2 * n(3) + 4 * n(4)),
        "gather_f32" => rows * 8 * n(3),
        "gather_bf16" | "scatter_bf16" => rows * 4 * n(3),
        "swiglu_forward" => rows * (4 * n(2) + 2 * n(3)),
        "swiglu_backward" => rows * 10 * n(3),
        "gelu_forward" | "gelu_tanh_forward" => rows * (2 * n(2) + 2 * n(3)),
        "gelu_backward" | "gelu_tanh_backward" => rows * 6 * n(3),
        "rotary_rounded" => rows * 6 * heads(5).0,
        "head_norm_forward" | "head_norm_backward" => {
            let (all, turned) = heads(8);
            rows * (6 * all + 2 * turned)
        }
        "head_absorb" => rows * 4 * n(7),
        "head_absorb_shares" => rows * (4 * n(9) + 2 * n(11)),
        // The largest logit rarely grows, and then only the factors are read.
        "head_rescale" => rows * 4,
        "head_gradient" => rows * 10 * n(7),
        "head_best" => rows * (4 * n(4) + 16 * n(6)),
        "head_finish" => rows * (20 + 12 * n(7)),
        _ if kernel.starts_with("thin_product_") => {
            let (tokens, inner, padded) = (n(2), n(3), n(8));
            tokens * 2 * (inner * padded.div_ceil(ranks) + padded) + 2 * inner * padded
        }
        "thin_gradient_add" => n(3) * (4 * n(5) + 8),
        _ if kernel.starts_with("thin_gradient_") => {
            let (tokens, columns, rank) = (n(3), n(4), n(7));
            let parts = u64::from(grid[2]);
            tokens * 2 * (columns * rank.div_ceil(ranks) + rank) + 4 * columns * rank * parts
        }
        "thin_copy" | "thin_copy_transposed" => 6 * n(3) * n(4),
        "gradient_sum_add" => 20 * n(3),
        "gradient_sum_check" => 4 * n(3).div_ceil(4096),
        "gradient_sum_read" => 12 * n(2),
        "norm_chunks" => 4 * n(2),
        "norm_finish" => 8 * n(3),
        "adamw_update" => 28 * n(6),
        "largest_magnitudes" => 4 * n(2),
        "finite_check" => 4 * n(2),
        "move_towards" => 12 * n(2),
        "scale_values" => 8 * n(1),
        _ => panic!("{kernel} has no entry"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use upright_kernels::{Element, FAMILIES, Kernel, Passing};

    use super::*;
    use crate::gpu::device::Place;

    fn kernels() -> impl Iterator<Item = &'static Kernel> {
        FAMILIES.iter().flat_map(|family| family.kernels)
    }

    #[test]
    fn every_kernel_has_an_entry() {
        let place = Place {
            address: 0,
            bytes: 0,
        };
        for kernel in kernels() {
            let mut args = Vec::new();
            for parameter in kernel.parameters {
                args.push(match (parameter.passing, parameter.element) {
                    (Passing::In, element) => Arg::In(element, place),
                    (Passing::Out, element) => Arg::Out(element, place),
                    (_, Element::F32) => Arg::F32(1.0),
                    (_, Element::F64) => Arg::F64(1.0),
                    (_, Element::U64) => Arg::U64(1),
                    _ => Arg::I32(1),
                });
            }
            let bytes = bytes(kernel.name, [1, 1, 1], &args);
            let is_attention = kernel.name.starts_with("attention_");
            assert_eq!(bytes == 0, is_attention, "{}", kernel.name);
        }
    }

    /// A kernel that nothing launches is deleted: it costs tests and images.
    #[test]
    fn every_kernel_is_launched() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu/kernels");
        let mut source = String::new();
        for entry in fs::read_dir(folder).unwrap() {
            source.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
        }
        for kernel in kernels() {
            let name = kernel.name;
            // Instances end in a size. Those of attention are fields of a table.
            let stem = name.trim_end_matches(|last: char| last.is_ascii_digit());
            let text = match stem.strip_prefix("attention_") {
                _ if stem == name => format!("\"{name}\""),
                Some(field) => format!("instance.{}", field.trim_end_matches('_')),
                None => format!("\"{stem}"),
            };
            assert!(source.contains(&text), "nothing launches {name}");
        }
    }
}
