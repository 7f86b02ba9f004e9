//! Processor time of this process, as the operating system reports it.

use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads of this process so far, in seconds.
pub fn seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

#[cfg(test)]
mod tests {
    #[test]
    fn work_takes_time() {
        let before = super::seconds();
        let mut x = 1u64;
        while super::seconds() < before + 0.01 {
            (0..1000).for_each(|i| x = std::hint::black_box(x.wrapping_mul(31) + i));
        }
    }
}
