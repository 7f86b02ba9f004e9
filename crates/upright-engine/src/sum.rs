//! An exact sum of vectors, in 64-bit fixed point. Integers are added without rounding, so the bits
//! of the sum do not depend on the order of the vectors, nor on which thread or device adds them.
//!
//! A value `x` becomes `round(x / unit)` units, ties to even; the unit is a power of two. Each
//! vector is rounded once, by at most half a unit per value. The sum is rounded to f32 once, when
//! it is read.

use std::{fmt, sync::Arc};

use rayon::{ThreadPool, prelude::*};
use upright_base::Result;
use upright_math::norm::CHUNK;

use crate::{
    gpu::{self, kernels::optimizer},
    vector::Vector,
};

/// Values that one thread processes at a time.
const STRETCH: usize = 16 * CHUNK;

/// A sum of vectors of one length. It has the same bits on every device.
#[derive(Debug)]
pub struct Sum {
    /// The unit is two to this power.
    exponent: i32,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Host(HostSum),
    Device {
        values: gpu::Array<i64>,
        /// Bound and first failure, as `gradient_sum_check` writes them.
        state: gpu::Array<u64>,
    },
}

/// A sum in host memory.
#[derive(Debug)]
struct HostSum {
    values: Vec<i64>,
    /// Upper bound of the sum's magnitudes, in units: the sum of the vectors' largest magnitudes.
    bound: u64,
    pool: Arc<ThreadPool>,
}

/// Why a vector cannot be added. The sum must not be read afterwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutOfRange {
    /// Index of the offending value in the vector.
    pub index: usize,
    /// The value: not finite, or so large that the sum could overflow.
    pub value: f32,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, value } = self;
        write!(f, "value {index} is {value}")
    }
}

/// Converts a value to units; `None` if it is not finite or beyond 2^63 units.
fn in_units(value: f32, scale: f64) -> Option<i64> {
    let units = (f64::from(value) * scale).round_ties_even();
    // Multiplying by a power of two is exact. The largest i64 is not an f64, so the next f64 below
    // it is the limit.
    (units.abs() < 9.223_372_036_854_775e18).then_some(units as i64)
}

impl Sum {
    /// A zero sum in units of 2^`exponent`.
    pub(crate) fn on_host(len: usize, exponent: i32, pool: Arc<ThreadPool>) -> Self {
        let storage = Storage::Host(HostSum {
            values: vec![0; len],
            bound: 0,
            pool,
        });
        Self { exponent, storage }
    }

    /// The same on a device.
    pub(crate) fn on_device(
        device: &Arc<dyn gpu::Device>,
        len: usize,
        exponent: i32,
    ) -> Result<Self> {
        let storage = Storage::Device {
            values: gpu::Array::zeros(device, len)?,
            state: gpu::Array::zeros(device, 4)?,
        };
        Ok(Self { exponent, storage })
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Host(sum) => sum.values.len(),
            Storage::Device { values, .. } => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the sum to zero.
    ///
    /// # Errors
    /// The device failed.
    pub fn clear(&mut self) -> Result<()> {
        match &mut self.storage {
            Storage::Host(sum) => {
                sum.values.fill(0);
                sum.bound = 0;
            }
            Storage::Device { values, state } => {
                values.zero()?;
                state.zero()?;
            }
        }
        Ok(())
    }

    /// Adds a vector. Returns why it cannot be added, if so: a value is not finite, or the largest magnitudes of all vectors
    /// add up to more than the sum can hold, 2^63 units. Whether this happens does not depend on the order of the vectors.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the lengths or the devices differ.
    pub fn add(&mut self, vector: &Vector) -> Result<Option<OutOfRange>> {
        assert_eq!(vector.len(), self.len(), "vectors of equal length");
        let scale = 2f64.powi(-self.exponent);
        match &mut self.storage {
            Storage::Host(sum) => Ok(sum.add(vector.host(), scale).err()),
            Storage::Device { values, state } => {
                let failure = optimizer::add(vector.device().0, values, state, scale)?;
                Ok(failure.map(|(index, value)| OutOfRange { index, value }))
            }
        }
    }

    /// Upper bound of the magnitudes, in units: the sum of the vectors' largest magnitudes. Sums of several processes may be added if
    /// their bounds add up to at most 2^63 - 1.
    ///
    /// # Errors
    /// The device failed.
    pub fn bound(&self) -> Result<u64> {
        match &self.storage {
            Storage::Host(sum) => Ok(sum.bound),
            Storage::Device { state, .. } => Ok(state.read()?[0]),
        }
    }

    /// Gives the values to `work` in units, in host memory, and takes them back changed: to add the sums of other processes.
    ///
    /// # Errors
    /// The error of `work`, or the device failed.
    pub fn exchange(&mut self, work: &mut dyn FnMut(&mut [i64]) -> Result<()>) -> Result<()> {
        match &mut self.storage {
            Storage::Host(sum) => work(&mut sum.values),
            Storage::Device { values, .. } => {
                let mut copied = values.read()?;
                work(&mut copied)?;
                values.write(&copied)
            }
        }
    }

    /// Writes the sum into a vector, rounded to f32.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the lengths or the devices differ.
    pub fn write_to(&self, vector: &mut Vector) -> Result<()> {
        assert_eq!(vector.len(), self.len(), "vectors of equal length");
        let unit = 2f64.powi(self.exponent);
        match &self.storage {
            Storage::Host(sum) => {
                sum.write_to(vector.host_mut(), unit);
                Ok(())
            }
            Storage::Device { values, .. } => {
                optimizer::read_sum(values, vector.device_mut(), unit)
            }
        }
    }
}

impl HostSum {
    fn add(&mut self, added: &[f32], scale: f64) -> std::result::Result<(), OutOfRange> {
        // The largest magnitude of a stretch, or the first value that cannot be converted.
        let largest = |first: usize, added: &[f32]| -> std::result::Result<u64, OutOfRange> {
            let mut largest = 0;
            for (index, value) in (first..).zip(added) {
                let units = in_units(*value, scale).ok_or(OutOfRange {
                    index,
                    value: *value,
                })?;
                largest = largest.max(units.unsigned_abs());
            }
            Ok(largest)
        };
        let largest = self.pool.install(|| {
            added
                .par_chunks(STRETCH)
                .enumerate()
                .map(|(chunk, added)| largest(chunk * STRETCH, added))
                .collect::<std::result::Result<Vec<u64>, OutOfRange>>()
        })?;
        let largest = largest.into_iter().max().unwrap_or(0);
        match self.bound.checked_add(largest) {
            Some(bound) if bound <= i64::MAX as u64 => self.bound = bound,
            _ => return Err(largest_of(added)),
        }
        let add = |sum: &mut [i64], added: &[f32]| {
            for (sum, value) in sum.iter_mut().zip(added) {
                *sum += (f64::from(*value) * scale).round_ties_even() as i64;
            }
        };
        self.pool.install(|| {
            self.values
                .par_chunks_mut(STRETCH)
                .zip(added.par_chunks(STRETCH))
                .for_each(|(sum, added)| add(sum, added));
        });
        Ok(())
    }

    fn write_to(&self, values: &mut [f32], unit: f64) {
        let round = |values: &mut [f32], sum: &[i64]| {
            for (value, units) in values.iter_mut().zip(sum) {
                *value = (*units as f64 * unit) as f32;
            }
        };
        self.pool.install(|| {
            values
                .par_chunks_mut(STRETCH)
                .zip(self.values.par_chunks(STRETCH))
                .for_each(|(values, sum)| round(values, sum));
        });
    }
}

/// The value with the largest magnitude, which takes the sum out of range.
fn largest_of(added: &[f32]) -> OutOfRange {
    let mut found = OutOfRange {
        index: 0,
        value: 0.0,
    };
    for (index, value) in added.iter().enumerate() {
        if value.abs() > found.value.abs() {
            found = OutOfRange {
                index,
                value: *value,
            };
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rayon::ThreadPoolBuilder;

    use super::*;

    fn pool(threads: usize) -> Arc<ThreadPool> {
        Arc::new(
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap(),
        )
    }

    fn sum_of(vectors: &[&Vec<f32>], threads: usize) -> std::result::Result<Vec<u32>, OutOfRange> {
        let pool = pool(threads);
        let mut sum = Sum::on_host(vectors[0].len(), -44, pool.clone());
        for vector in vectors {
            if let Some(problem) = sum
                .add(&Vector::on_host((*vector).clone(), pool.clone()))
                .unwrap()
            {
                return Err(problem);
            }
        }
        let mut out = Vector::on_host(vec![0.0; sum.len()], pool);
        sum.write_to(&mut out).unwrap();
        Ok(out.read().unwrap().iter().map(|x| x.to_bits()).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Vectors of values from 1e-12 to 1e4, of either sign, in any order, on 1 to 8 threads.
        #[test]
        fn the_order_of_vectors_and_the_threads_change_no_bit(
            vectors in prop::collection::vec(prop::collection::vec((-12.0..4.0f32, any::<bool>()), 70_000 / 1000), 1..9),
            order in any::<u64>(),
            repeats in 1..1000usize,
        ) {
            let vectors: Vec<Vec<f32>> = vectors
                .into_iter()
                .map(|values| {
                    let values = values.into_iter().map(|(power, minus)| {
                        let value = 10f32.powf(power);
                        if minus { -value } else { value }
                    });
                    let values: Vec<f32> = values.collect();
                    values.iter().copied().cycle().take(values.len() * repeats).collect()
                })
                .collect();
            let straight: Vec<&Vec<f32>> = vectors.iter().collect();
            let mut shuffled = straight.clone();
            shuffled.sort_by_key(|vector| upright_math::random::splitmix(order ^ u64::from(vector[0].to_bits())));
            let expected = sum_of(&straight, 1).unwrap();
            for threads in 1..=8 {
                prop_assert_eq!(&sum_of(&shuffled, threads).unwrap(), &expected);
            }
        }
    }

    /// Sums of two processes, added as integers, are the sum of all vectors.
    #[test]
    fn sums_are_exchanged_in_units() {
        let pool = pool(2);
        let vectors = [vec![0.1f32, -3.0], vec![7e-9, 1.0], vec![-0.3, 2.5]];
        let sum_over = |vectors: &[Vec<f32>]| {
            let mut sum = Sum::on_host(2, -44, pool.clone());
            for vector in vectors {
                let vector = Vector::on_host(vector.clone(), pool.clone());
                assert_eq!(sum.add(&vector).unwrap(), None);
            }
            sum
        };
        let read = |sum: &Sum| {
            let mut out = Vector::on_host(vec![0.0; 2], pool.clone());
            sum.write_to(&mut out).unwrap();
            out.read().unwrap().into_owned()
        };
        let (mut here, mut there) = (sum_over(&vectors[..1]), sum_over(&vectors[1..]));
        let whole = sum_over(&vectors);
        let bounds = [&here, &there].map(|sum| sum.bound().unwrap());
        assert_eq!(bounds[0] + bounds[1], whole.bound().unwrap());
        let mut theirs = Vec::new();
        let mut take = |values: &mut [i64]| {
            theirs = values.to_vec();
            Ok(())
        };
        there.exchange(&mut take).unwrap();
        let mut add = |values: &mut [i64]| {
            for (value, their) in values.iter_mut().zip(&theirs) {
                *value += their;
            }
            Ok(())
        };
        here.exchange(&mut add).unwrap();
        assert_eq!(read(&here), read(&whole));
    }

    #[test]
    fn values_that_cancel_leave_what_is_small() {
        // In f32 the small value is lost beside the large ones.
        let parts = [vec![1e4f32], vec![1e-6], vec![-1e4]];
        let parts: Vec<&Vec<f32>> = parts.iter().collect();
        let found = f32::from_bits(sum_of(&parts, 1).unwrap()[0]);
        assert!((found - 1e-6).abs() < 1e-12, "{found}");
        assert_eq!((1e4f32 + 1e-6) - 1e4, 0.0);
    }

    #[test]
    fn what_is_not_finite_or_too_large_is_named() {
        let broken = |value: f32| {
            let mut values = vec![1.0f32; 100_000];
            values[99_000] = value;
            values
        };
        for value in [f32::INFINITY, f32::NEG_INFINITY, 1e6] {
            let error = sum_of(&[&broken(value)], 2).unwrap_err();
            assert_eq!(
                error,
                OutOfRange {
                    index: 99_000,
                    value
                }
            );
        }
        let error = sum_of(&[&broken(f32::NAN)], 2).unwrap_err();
        assert!(error.index == 99_000 && error.value.is_nan());
        // The limit is 2^63 units of 2^-44, which is 2^19. Two values above half of it exceed it in
        // any order.
        let half = broken(300_000.0);
        let small = broken(1.0);
        for parts in [
            [&half, &half, &small],
            [&small, &half, &half],
            [&half, &small, &half],
        ] {
            assert_eq!(sum_of(&parts, 2).unwrap_err().value, 300_000.0);
        }
        assert!(sum_of(&[&half, &small], 2).is_ok());
    }
}
