//! A vector in an adapter's layout on the decoder's device: parameters, gradient, or an optimizer
//! moment. On the host, every operation runs on all threads of the decoder, and no result depends
//! on the number of threads.

use std::{borrow::Cow, sync::Arc};

use rayon::{ThreadPool, prelude::*};
use upright_math::{
    adamw::AdamWStep,
    norm::{CHUNK, sum_of_squares},
};

/// Values that one thread processes at a time. A vector of at most this length is processed on the
/// calling thread.
const STRETCH: usize = 16 * CHUNK;

/// f32 values on a device.
#[derive(Clone, Debug)]
pub struct Vector {
    storage: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    Host {
        values: Vec<f32>,
        pool: Arc<ThreadPool>,
    },
}

impl Vector {
    /// Values in host memory, processed by a thread pool.
    pub(crate) fn on_host(values: Vec<f32>, pool: Arc<ThreadPool>) -> Self {
        Self {
            storage: Storage::Host { values, pool },
        }
    }

    /// The values in host memory.
    pub(crate) fn host(&self) -> &[f32] {
        let Storage::Host { values, .. } = &self.storage;
        values
    }

    /// The values in host memory, mutable.
    pub(crate) fn host_mut(&mut self) -> &mut [f32] {
        let Storage::Host { values, .. } = &mut self.storage;
        values
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.host().len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, copied to the host if they are elsewhere.
    pub fn read(&self) -> Cow<'_, [f32]> {
        Cow::Borrowed(self.host())
    }

    /// Replaces all values.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn write(&mut self, values: &[f32]) {
        self.host_mut().copy_from_slice(values);
    }

    /// Sets all values to 0.
    pub fn clear(&mut self) {
        self.host_mut().fill(0.0);
    }

    /// Euclidean norm, in f64. Chunks are summed separately, and their sums are added in order.
    pub fn norm(&self) -> f64 {
        let Storage::Host { values, pool } = &self.storage;
        if values.len() <= STRETCH {
            return upright_math::norm::norm(values);
        }
        let sums: Vec<f64> =
            pool.install(|| values.par_chunks(CHUNK).map(sum_of_squares).collect());
        sums.iter().sum::<f64>().sqrt()
    }

    /// Multiplies all values by a factor.
    pub fn scale(&mut self, factor: f32) {
        let Storage::Host { values, pool } = &mut self.storage;
        let scale = |values: &mut [f32]| values.iter_mut().for_each(|x| *x *= factor);
        if values.len() <= STRETCH {
            scale(values);
        } else {
            pool.install(|| values.par_chunks_mut(STRETCH).for_each(scale));
        }
    }

    /// Whether every value is finite.
    pub fn is_finite(&self) -> bool {
        let Storage::Host { values, pool } = &self.storage;
        let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
        if values.len() <= STRETCH {
            finite(values)
        } else {
            pool.install(|| values.par_chunks(STRETCH).all(finite))
        }
    }

    /// Moves every value towards its target by a share of the distance: `x += share (target - x)`. A
    /// share of 1 copies the target.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn move_towards(&mut self, target: &Self, share: f32) {
        if share == 1.0 {
            return self.write(target.host());
        }
        let Storage::Host { values, pool } = &mut self.storage;
        let target = target.host();
        assert_eq!(values.len(), target.len(), "one target per value");
        let step = |(values, targets): (&mut [f32], &[f32])| {
            for (x, target) in values.iter_mut().zip(targets) {
                *x += share * (target - *x);
            }
        };
        if values.len() <= STRETCH {
            return step((values, target));
        }
        pool.install(|| {
            values
                .par_chunks_mut(STRETCH)
                .zip(target.par_chunks(STRETCH))
                .for_each(step);
        });
    }

    /// One AdamW update of these parameters and their two moments.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn adamw(&mut self, gradient: &Self, m: &mut Self, v: &mut Self, step: &AdamWStep) {
        let Storage::Host { values, pool } = &mut self.storage;
        let (g, m, v) = (gradient.host(), m.host_mut(), v.host_mut());
        if values.len() <= STRETCH {
            return step.apply(values, g, m, v);
        }
        assert!(
            g.len() == values.len() && m.len() == values.len() && v.len() == values.len(),
            "one gradient and two moments per parameter"
        );
        pool.install(|| {
            values
                .par_chunks_mut(STRETCH)
                .zip(g.par_chunks(STRETCH))
                .zip(m.par_chunks_mut(STRETCH).zip(v.par_chunks_mut(STRETCH)))
                .for_each(|((p, g), (m, v))| step.apply(p, g, m, v));
        });
    }
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::*;

    fn values(len: usize, factor: f32) -> Vec<f32> {
        (0..len)
            .map(|i| factor * ((i * 7919 % 2003) as f32 - 1001.0))
            .collect()
    }

    /// Lengths around a stretch and a chunk, on 1 to 8 threads, against one slice.
    #[test]
    fn no_result_depends_on_the_number_of_threads() {
        for len in [1, CHUNK, STRETCH, STRETCH + 1, 3 * STRETCH + 1234] {
            let step = AdamWStep::new([0.9, 0.95], 1e-8, 0.01, 1e-3, 3);
            let (mut p, g) = (values(len, 0.01), values(len, 0.5));
            let (mut m, mut v) = (values(len, 0.1), vec![0.25; len]);
            let norm = upright_math::norm::norm(&g);
            let start = [p.clone(), m.clone(), v.clone()];
            step.apply(&mut p, &g, &mut m, &mut v);
            for threads in 1..=8 {
                let pool = ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let pool = Arc::new(pool);
                let on_host = |values: &[f32]| Vector::on_host(values.to_vec(), pool.clone());
                let [mut q, mut mq, mut vq] = [0, 1, 2].map(|i| on_host(&start[i]));
                let mut gradient = on_host(&g);
                assert_eq!(gradient.norm().to_bits(), norm.to_bits());
                q.adamw(&gradient, &mut mq, &mut vq, &step);
                assert_eq!(q.read(), p);
                assert_eq!(mq.read(), m);
                assert_eq!(vq.read(), v);
                gradient.scale(0.5);
                assert_eq!(gradient.read()[len - 1], 0.5 * g[len - 1]);
                assert!(q.is_finite());
                let mut average = on_host(&p);
                average.move_towards(&on_host(&g), 0.25);
                for (index, moved) in average.read().iter().enumerate() {
                    assert_eq!(*moved, p[index] + 0.25 * (g[index] - p[index]));
                }
                average.move_towards(&on_host(&g), 1.0);
                assert_eq!(average.read(), g);
            }
        }
    }

    #[test]
    fn one_broken_value_is_seen() {
        let pool = Arc::new(ThreadPoolBuilder::new().num_threads(2).build().unwrap());
        let mut values = vec![1.0; 2 * STRETCH + 3];
        *values.last_mut().unwrap() = f32::INFINITY;
        assert!(!Vector::on_host(values, pool).is_finite());
    }
}
