//! What the operating system says of processor time.

/// Processor time of all threads of this process so far, in seconds; `None` where the system does not say.
pub fn seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        // SAFETY: all bits zero are a valid `rusage`, which the call fills.
        let (used, usage) = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), usage)
        };
        let of = |time: libc::timeval| time.tv_sec as f64 + 1e-6 * time.tv_usec as f64;
        (used == 0).then(|| of(usage.ru_utime) + of(usage.ru_stime))
    }
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(unix)]
    fn work_takes_time() {
        let before = super::seconds().unwrap();
        let mut x = 1u64;
        while super::seconds().unwrap() < before + 0.01 {
            (0..1000).for_each(|i| x = std::hint::black_box(x.wrapping_mul(31) + i));
        }
    }
}
