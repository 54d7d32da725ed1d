//! How much memory this program may still take.

use std::fs;
use std::path::Path;

/// Bytes that are free for this program by all that the system says: its memory, the control group's limit, the limit of
/// the process's addresses; `None` where it says nothing.
pub(crate) fn available() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let system = field(&read("/proc/meminfo"), "MemAvailable:").map(|kibibytes| kibibytes * 1024);
    let group = read("/proc/self/cgroup");
    let group = group.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = group.and_then(|group| group_room(&Path::new("/sys/fs/cgroup").join(group.trim())));
    let addresses = addresses(&read("/proc/self/limits"), &read("/proc/self/status"));
    [system, group, addresses].into_iter().flatten().min()
}

/// What a control group (version 2) may still take.
fn group_room(folder: &Path) -> Option<u64> {
    let number = |file: &str| -> Option<u64> {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        text.trim().parse().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

/// What the limit of addresses leaves.
fn addresses(limits: &str, status: &str) -> Option<u64> {
    let limit = field(limits, "Max address space")?;
    Some(limit.saturating_sub(field(status, "VmSize:")? * 1024))
}

/// The first number of the line that begins with `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_tables_are_read() {
        let memory = "MemTotal:       24000000 kB\nMemAvailable:   16000000 kB\n";
        assert_eq!(field(memory, "MemAvailable:"), Some(16_000_000));
        let limits = "Limit   Soft Limit   Hard Limit   Units\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(addresses(limits, "VmSize:\t 1000 kB\n"), None);
        let limits = "Max address space         4096000              unlimited            bytes\n";
        assert_eq!(addresses(limits, "VmSize:\t 1000 kB\n"), Some(3_072_000));
        assert_eq!(addresses(limits, "VmSize:\t 9000 kB\n"), Some(0));
        assert!(available().is_none_or(|bytes| bytes > 0));
    }
}
