//! What the operating system says of memory.

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

/// Memory that could be taken now without swapping, in bytes, within the limit of the control group (v2) if the process
/// is in one; `None` where the system does not say.
pub fn available_bytes() -> Option<usize> {
    let machine = field("/proc/meminfo", "MemAvailable:");
    let group = std::fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|groups| control_group_bytes(Path::new("/sys/fs/cgroup"), &groups));
    [machine, group].into_iter().flatten().min()
}

/// What the limits of a process's control group, and of those around it, leave: the smallest of limit less use, where pages
/// of files, which can be dropped, are no use. `groups` is the process's `/proc/PID/cgroup`.
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

/// The most memory this process has held at once, in bytes: its own and the mapped pages it touched.
pub fn peak_bytes() -> Option<usize> {
    field("/proc/self/status", "VmHWM:")
}

/// Lets [`peak_bytes`] begin again with what is held now, where the system can: a process that does one thing after
/// another asks what each of them took.
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
