//! What the operating system says of memory.

/// A field of a `/proc` file such as `MemAvailable:  123 kB`, in bytes.
fn field(file: &str, name: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Memory that could be taken now without swapping, in bytes, within the limit of the control group (v2) if the process
/// is in one; `None` where the system does not say.
pub fn available_bytes() -> Option<usize> {
    let machine = field("/proc/meminfo", "MemAvailable:");
    [machine, control_group_bytes()].into_iter().flatten().min()
}

/// What the control group's limit leaves: limit less use, where file pages that can be dropped are no use.
fn control_group_bytes() -> Option<usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = std::path::Path::new("/sys/fs/cgroup").join(path);
    let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<usize>().ok();
    let (limit, used) = (number("memory.max")?, number("memory.current")?);
    let statistics = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let droppable = statistics.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<usize>().ok());
    Some(limit.saturating_sub(used.saturating_sub(droppable.unwrap_or(0))))
}

/// Memory of the machine, in bytes.
pub fn total_bytes() -> Option<usize> {
    field("/proc/meminfo", "MemTotal:")
}

/// The most memory this process has held at once, in bytes: its own and the mapped pages it touched.
pub fn peak_bytes() -> Option<usize> {
    field("/proc/self/status", "VmHWM:")
}

/// Lets [`peak_bytes`] begin again with what is held now, where the system can: a process that does one thing after
/// another asks what each of them took.
pub fn forget_peak() {
    // Linux: 5 resets the peak and nothing else.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
