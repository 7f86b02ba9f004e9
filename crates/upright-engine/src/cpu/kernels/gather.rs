//! Gather and scatter of matrix rows.

use bytemuck::Pod;
use rayon::prelude::*;

use crate::cpu::buffer::Buffer;

/// Gathers the rows of `x` `[T, width]` that `rows` lists into `[rows, width]`.
pub(crate) fn gather<T: Pod + Send + Sync>(x: &[T], rows: &[usize], width: usize) -> Buffer<T> {
    let mut y = Buffer::new(rows.len() * width);
    y.par_chunks_mut(width)
        .zip(rows)
        .for_each(|(y, &row)| y.copy_from_slice(&x[row * width..][..width]));
    y
}

/// Scatters the rows of `y` to the positions `rows`, ascending, of `[count, width]`; all other rows
/// are zero.
pub(crate) fn scatter(y: &[f32], rows: &[usize], count: usize, width: usize) -> Buffer<f32> {
    let mut x = Buffer::new(count * width);
    x.par_chunks_mut(width)
        .enumerate()
        .for_each(|(row, x)| match rows.binary_search(&row) {
            Ok(at) => x.copy_from_slice(&y[at * width..][..width]),
            Err(_) => x.fill(0.0),
        });
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_to_their_places() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let some = gather(&x, &[0, 2], 2);
        assert_eq!(some[..], [1.0, 2.0, 5.0, 6.0]);
        assert_eq!(
            scatter(&some, &[0, 2], 4, 2)[..],
            [1.0, 2.0, 0.0, 0.0, 5.0, 6.0, 0.0, 0.0]
        );
        assert!(gather(&x, &[], 2).is_empty());
        assert_eq!(scatter(&[], &[], 2, 2)[..], [0.0; 4]);
    }
}
