//! What the operating system says of memory.

/// A field of a `/proc` file such as `MemAvailable:  123 kB`, in bytes.
fn field(file: &str, name: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Memory that could be taken now without swapping, in bytes; `None` where the system does not say.
pub fn available_bytes() -> Option<usize> {
    field("/proc/meminfo", "MemAvailable:")
}

/// Memory of the machine, in bytes.
pub fn total_bytes() -> Option<usize> {
    field("/proc/meminfo", "MemTotal:")
}

/// The most memory this process has held at once, in bytes: its own and the mapped pages it touched.
pub fn peak_bytes() -> Option<usize> {
    field("/proc/self/status", "VmHWM:")
}
