//! Launches of kernels, one file per family. A function takes arrays and sizes, chooses grid and instance, and does nothing where
//! there are no rows.

pub(super) mod activation;
pub(super) mod attention;
pub(super) mod head;
pub(super) mod heads;
pub(super) mod norm;
pub(crate) mod optimizer;
pub(super) mod rows;
pub(super) mod thin;

/// Blocks for kernels of which a block takes 1024 columns of a row.
fn by_columns(rows: usize, width: usize) -> [usize; 3] {
    [rows, width.div_ceil(1024), 1]
}
