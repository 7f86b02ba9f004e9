//! A vector in an adapter's layout on the decoder's device: parameters, gradient, or an optimizer
//! moment. On the host, every operation runs on all threads of the decoder, and no result depends
//! on the number of threads. Every operation has the same bits on every device.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rayon::{ThreadPool, prelude::*};
use upright_base::Result;
use upright_math::{
    adamw::AdamWStep,
    norm::{CHUNK, sum_of_squares},
};

use crate::gpu::{self, kernels::optimizer};

/// Values that one thread processes at a time. A vector of at most this length is processed on the
/// calling thread.
const STRETCH: usize = 16 * CHUNK;

/// f32 values on a device. If an operation fails, the device has failed, and so do all later operations.
#[derive(Debug)]
pub struct Vector {
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Host {
        values: Vec<f32>,
        pool: Arc<ThreadPool>,
    },
    Device {
        values: gpu::Array<f32>,
        /// Number of the content: no two contents of the process have the same.
        version: u64,
    },
}

/// The number of a new content on a device.
fn next_version() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

impl Vector {
    /// Values in host memory, processed by a thread pool.
    pub(crate) fn on_host(values: Vec<f32>, pool: Arc<ThreadPool>) -> Self {
        Self {
            storage: Storage::Host { values, pool },
        }
    }

    /// Values on a device.
    pub(crate) fn on_device(device: &Arc<dyn gpu::Device>, values: &[f32]) -> Result<Self> {
        Ok(Self {
            storage: Storage::Device {
                values: gpu::Array::from(device, values)?,
                version: next_version(),
            },
        })
    }

    /// The values in host memory.
    ///
    /// # Panics
    /// If they are elsewhere.
    pub(crate) fn host(&self) -> &[f32] {
        match &self.storage {
            Storage::Host { values, .. } => values,
            Storage::Device { .. } => panic!("a vector of another device"),
        }
    }

    /// The values in host memory, mutable.
    ///
    /// # Panics
    /// If they are elsewhere.
    pub(crate) fn host_mut(&mut self) -> &mut [f32] {
        match &mut self.storage {
            Storage::Host { values, .. } => values,
            Storage::Device { .. } => panic!("a vector of another device"),
        }
    }

    /// The values on a device, and the number of their content.
    ///
    /// # Panics
    /// If they are in host memory.
    pub(crate) fn device(&self) -> (&gpu::Array<f32>, u64) {
        match &self.storage {
            Storage::Device { values, version } => (values, *version),
            Storage::Host { .. } => panic!("a vector of another device"),
        }
    }

    /// The values on a device, which get a new content.
    ///
    /// # Panics
    /// If they are in host memory.
    pub(crate) fn device_mut(&mut self) -> &gpu::Array<f32> {
        match &mut self.storage {
            Storage::Device { values, version } => {
                *version = next_version();
                values
            }
            Storage::Host { .. } => panic!("a vector of another device"),
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Host { values, .. } => values.len(),
            Storage::Device { values, .. } => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, copied to the host if they are elsewhere.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&self) -> Result<Cow<'_, [f32]>> {
        match &self.storage {
            Storage::Host { values, .. } => Ok(Cow::Borrowed(values)),
            Storage::Device { values, .. } => Ok(Cow::Owned(values.read()?)),
        }
    }

    /// The same values in memory of their own.
    ///
    /// # Errors
    /// The device failed, or has too little memory.
    pub fn copy(&self) -> Result<Self> {
        let storage = match &self.storage {
            Storage::Host { values, pool } => Storage::Host {
                values: values.clone(),
                pool: Arc::clone(pool),
            },
            Storage::Device { values, .. } => Storage::Device {
                values: values.copy()?,
                version: next_version(),
            },
        };
        Ok(Self { storage })
    }

    /// Replaces all values.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        match &mut self.storage {
            Storage::Host { values: own, .. } => own.copy_from_slice(values),
            Storage::Device { .. } => self.device_mut().write(values)?,
        }
        Ok(())
    }

    /// Sets all values to 0.
    ///
    /// # Errors
    /// The device failed.
    pub fn clear(&mut self) -> Result<()> {
        match &mut self.storage {
            Storage::Host { values, .. } => values.fill(0.0),
            Storage::Device { .. } => self.device_mut().zero()?,
        }
        Ok(())
    }

    /// Euclidean norm, in f64. Chunks are summed separately, and their sums are added in order.
    ///
    /// # Errors
    /// The device failed.
    pub fn norm(&self) -> Result<f64> {
        match &self.storage {
            Storage::Host { values, .. } if values.len() <= STRETCH => {
                Ok(upright_math::norm::norm(values))
            }
            Storage::Host { values, pool } => {
                let sums: Vec<f64> =
                    pool.install(|| values.par_chunks(CHUNK).map(sum_of_squares).collect());
                Ok(sums.iter().sum::<f64>().sqrt())
            }
            Storage::Device { values, .. } => optimizer::norm(values),
        }
    }

    /// Multiplies all values by a factor.
    ///
    /// # Errors
    /// The device failed.
    pub fn scale(&mut self, factor: f32) -> Result<()> {
        let scale = |values: &mut [f32]| values.iter_mut().for_each(|x| *x *= factor);
        match &mut self.storage {
            Storage::Host { values, .. } if values.len() <= STRETCH => scale(values),
            Storage::Host { values, pool } => {
                pool.install(|| values.par_chunks_mut(STRETCH).for_each(scale));
            }
            Storage::Device { .. } => optimizer::scale(self.device_mut(), factor)?,
        }
        Ok(())
    }

    /// Whether every value is finite.
    ///
    /// # Errors
    /// The device failed.
    pub fn is_finite(&self) -> Result<bool> {
        let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
        match &self.storage {
            Storage::Host { values, .. } if values.len() <= STRETCH => Ok(finite(values)),
            Storage::Host { values, pool } => {
                Ok(pool.install(|| values.par_chunks(STRETCH).all(finite)))
            }
            Storage::Device { values, .. } => optimizer::is_finite(values),
        }
    }

    /// Moves every value towards its target by a share of the distance: `x += share (target - x)`. A
    /// share of 1 copies the target.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the lengths or the devices differ.
    pub fn move_towards(&mut self, target: &Self, share: f32) -> Result<()> {
        assert_eq!(self.len(), target.len(), "one target per value");
        let Storage::Host { values, pool } = &mut self.storage else {
            let target = target.device().0;
            return optimizer::move_towards(self.device_mut(), target, share);
        };
        let target = target.host();
        if share == 1.0 {
            values.copy_from_slice(target);
            return Ok(());
        }
        let step = |(values, targets): (&mut [f32], &[f32])| {
            for (x, target) in values.iter_mut().zip(targets) {
                *x += share * (target - *x);
            }
        };
        if values.len() <= STRETCH {
            step((values, target));
            return Ok(());
        }
        pool.install(|| {
            values
                .par_chunks_mut(STRETCH)
                .zip(target.par_chunks(STRETCH))
                .for_each(step);
        });
        Ok(())
    }

    /// One AdamW update of these parameters and their two moments.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the lengths or the devices differ.
    pub fn adamw(
        &mut self,
        gradient: &Self,
        m: &mut Self,
        v: &mut Self,
        step: &AdamWStep,
    ) -> Result<()> {
        let len = self.len();
        assert!(
            gradient.len() == len && m.len() == len && v.len() == len,
            "one gradient and two moments per parameter"
        );
        let Storage::Host { values, pool } = &mut self.storage else {
            let moments = [m.device_mut(), v.device_mut()];
            return optimizer::adamw(self.device_mut(), gradient.device().0, moments, step);
        };
        let (g, m, v) = (gradient.host(), m.host_mut(), v.host_mut());
        if values.len() <= STRETCH {
            step.apply(values, g, m, v);
            return Ok(());
        }
        pool.install(|| {
            values
                .par_chunks_mut(STRETCH)
                .zip(g.par_chunks(STRETCH))
                .zip(m.par_chunks_mut(STRETCH).zip(v.par_chunks_mut(STRETCH)))
                .for_each(|((p, g), (m, v))| step.apply(p, g, m, v));
        });
        Ok(())
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
                assert_eq!(gradient.norm().unwrap().to_bits(), norm.to_bits());
                q.adamw(&gradient, &mut mq, &mut vq, &step).unwrap();
                assert_eq!(q.read().unwrap(), p);
                assert_eq!(mq.read().unwrap(), m);
                assert_eq!(vq.read().unwrap(), v);
                gradient.scale(0.5).unwrap();
                assert_eq!(gradient.read().unwrap()[len - 1], 0.5 * g[len - 1]);
                assert!(q.is_finite().unwrap());
                let mut average = on_host(&p);
                average.move_towards(&on_host(&g), 0.25).unwrap();
                for (index, moved) in average.read().unwrap().iter().enumerate() {
                    assert_eq!(*moved, p[index] + 0.25 * (g[index] - p[index]));
                }
                average.move_towards(&on_host(&g), 1.0).unwrap();
                assert_eq!(average.read().unwrap(), g);
            }
        }
    }

    #[test]
    fn one_broken_value_is_seen() {
        let pool = Arc::new(ThreadPoolBuilder::new().num_threads(2).build().unwrap());
        let mut values = vec![1.0; 2 * STRETCH + 3];
        *values.last_mut().unwrap() = f32::INFINITY;
        assert!(!Vector::on_host(values, pool).is_finite().unwrap());
    }
}
