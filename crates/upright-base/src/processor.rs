//! Processor time of this process, as the operating system reports it.

use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads of this process so far, in seconds.
pub fn seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// Threads for each of some processes on this machine: an equal share of the cores. A launcher that has bound a process to some of
/// the cores has divided them already.
pub fn share_of_cores(processes: usize) -> usize {
    let here = std::thread::available_parallelism().map_or(1, usize::from);
    let is_bound = online().is_some_and(|all| allowed() < all);
    let share = if is_bound {
        here
    } else {
        here / processes.max(1)
    };
    share.max(1)
}

/// Number of cores that this process may run on. A limit of processor time does not lower it.
fn allowed() -> usize {
    let cores = rustix::thread::sched_getaffinity(None);
    cores.map_or(usize::MAX, |cores| cores.count() as usize)
}

/// Number of cores that the system uses, from a list such as `0-3,8`; `None` where there is none.
fn online() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let mut count = 0;
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        count += last.parse::<usize>().ok()? + 1 - first.parse::<usize>().ok()?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cores_are_divided() {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(super::share_of_cores(1), all);
        let is_bound = super::online().is_some_and(|online| super::allowed() < online);
        assert_eq!(super::share_of_cores(1000), if is_bound { all } else { 1 });
    }

    #[test]
    fn work_takes_time() {
        let before = super::seconds();
        let mut x = 1u64;
        while super::seconds() < before + 0.01 {
            (0..1000).for_each(|i| x = std::hint::black_box(x.wrapping_mul(31) + i));
        }
    }
}
