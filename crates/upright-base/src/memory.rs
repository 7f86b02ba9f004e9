//! Memory of the machine and of this process, as the operating system reports it.

use std::path::Path;

/// A field of a `/proc` file such as `MemAvailable:  123 kB`, in bytes.
fn field(file: &str, name: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<usize>()
        .ok()
        .map(|kilobytes| kilobytes * 1024)
}

/// Memory that can be allocated now without swapping, in bytes. Respects the limit of the process's
/// control group (v2), if it is in one. `None` if the system does not report it.
pub fn available_bytes() -> Option<usize> {
    let machine = field("/proc/meminfo", "MemAvailable:");
    let group = std::fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|groups| control_group_bytes(Path::new("/sys/fs/cgroup"), &groups));
    [machine, group].into_iter().flatten().min()
}

/// Memory left in a process's control group, in bytes: the minimum of limit minus use over the
/// group and its ancestors. Pages of files do not count as used, because the kernel can drop them.
/// `groups` is the text of the process's `/proc/PID/cgroup`.
fn control_group_bytes(root: &Path, groups: &str) -> Option<usize> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let left = |folder: &Path| {
        let number = |name: &str| {
            std::fs::read_to_string(folder.join(name))
                .ok()?
                .trim()
                .parse::<usize>()
                .ok()
        };
        let (limit, used) = (number("memory.max")?, number("memory.current")?);
        let statistics = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let pages = |name: &str| {
            statistics
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok())
                .unwrap_or(0)
        };
        let droppable = pages("inactive_file ") + pages("active_file ");
        Some(limit.saturating_sub(used.saturating_sub(droppable)))
    };
    let folder = root.join(path);
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(left)
        .min()
}

/// Memory of the machine, in bytes.
pub fn total_bytes() -> Option<usize> {
    field("/proc/meminfo", "MemTotal:")
}

/// Peak memory of this process, in bytes, including the mapped pages that it touched.
pub fn peak_bytes() -> Option<usize> {
    field("/proc/self/status", "VmHWM:")
}

/// Resets [`peak_bytes`] to the memory held now, if the system supports it. A process can then
/// measure several tasks one after another.
pub fn forget_peak() {
    // Linux: 5 resets the peak and nothing else.
    #[allow(
        clippy::disallowed_methods,
        reason = "a file of the system, not of the program"
    )]
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts_and_pages_of_files_do_not() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, limit: &str, used: usize, inactive: usize, active: usize| {
            let folder = root.path().join(path);
            std::fs::create_dir_all(&folder).unwrap();
            let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
            write("memory.max", format!("{limit}\n"));
            write("memory.current", format!("{used}\n"));
            write(
                "memory.stat",
                format!("anon 7\ninactive_file {inactive}\nactive_file {active}\n"),
            );
        };
        let left = |path: &str| {
            control_group_bytes(root.path(), &format!("1:name=systemd:/x\n0::/{path}\n"))
        };
        group("job/step/task", "max", 90, 0, 0);
        assert_eq!(left("job/step/task"), None);
        group("job", "100", 95, 20, 30);
        assert_eq!(left("job/step/task"), Some(55));
        group("job/step/task", "60", 40, 0, 15);
        assert_eq!(left("job/step/task"), Some(35));
        assert_eq!(left("elsewhere"), None);
    }
}
