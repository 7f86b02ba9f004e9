//! Checks and measurements of a device.

use std::time::Instant;

use half::bf16;
use upright_base::Result;
use upright_kernels::Element;

use super::{array::Array, decoder::Decoder, device::Product};
use crate::microbench::MatrixRate;

/// Numbers of rows for which a product is tried: fewer and more than a tile has, and many.
const ROWS: [usize; 5] = [1, 17, 64, 300, 1000];

impl Decoder {
    /// Whether a row of a product has the same bits beside any number of other rows. Every promise about bits depends on it:
    /// equal log-probabilities in any pack, and a resumed run that equals a straight one. Each shape of the model is tried.
    ///
    /// # Errors
    /// The device failed.
    pub(crate) fn rows_keep_their_bits(&self) -> Result<bool> {
        let state = self.state();
        let mut shapes = state.weights.shapes(self.cut.vocabulary);
        shapes.sort_unstable();
        shapes.dedup();
        drop(state);
        for (n, k, b_transposed) in shapes {
            if !self.keeps_bits(n, k, b_transposed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same for products of `[m, k]` and `[k, n]`.
    fn keeps_bits(&self, n: usize, k: usize, b_transposed: bool) -> Result<bool> {
        let device = &self.device;
        let number = |index: usize| {
            let mixed = upright_math::random::splitmix(index as u64);
            bf16::from_f32((mixed >> 40) as f32 / (1 << 24) as f32 - 0.5)
        };
        let most = ROWS[ROWS.len() - 1];
        let values: Vec<bf16> = (0..most * k).map(number).collect();
        let a = Array::from(device, &values)?;
        let values: Vec<bf16> = (0..n * k).map(|index| number(index + 7)).collect();
        let b = Array::from(device, &values)?;
        let mut first: Vec<u32> = Vec::new();
        for m in ROWS {
            let d = Array::<f32>::new(device, m * n)?;
            device.multiply(&Product {
                m,
                n,
                k,
                a: a.place(),
                a_stride: k,
                b: b.place(),
                b_stride: if b_transposed { k } else { n },
                b_transposed,
                c: None,
                bias: None,
                d: d.place(),
                d_element: Element::F32,
            })?;
            let row: Vec<u32> = d.part(0, n).read()?.iter().map(|x| x.to_bits()).collect();
            if m == ROWS[0] {
                first = row;
            } else if row != first {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Measures the rate of a large product, in operations/s: the best of a few runs.
    ///
    /// # Errors
    /// The device failed.
    pub(crate) fn matrix_rate(&self) -> Result<MatrixRate> {
        let device = &self.device;
        let size = device.large_product();
        let a = Array::<bf16>::zeros(device, size * size)?;
        let d = Array::<f32>::new(device, size * size)?;
        let product = Product {
            m: size,
            n: size,
            k: size,
            a: a.place(),
            a_stride: size,
            b: a.place(),
            b_stride: size,
            b_transposed: true,
            c: None,
            bias: None,
            d: d.place(),
            d_element: Element::F32,
        };
        let operations = 2.0 * product.multiply_adds() as f64;
        let mut best = f64::INFINITY;
        for _ in 0..6 {
            let began = Instant::now();
            device.multiply(&product)?;
            // Reading a number waits for the product.
            d.part(0, 1).read()?;
            best = best.min(began.elapsed().as_secs_f64());
        }
        Ok(MatrixRate {
            bound: device.peak_rate(),
            product: operations / best,
        })
    }
}
